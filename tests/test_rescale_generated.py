"""Mode exact on networks by combination: refused with a reason, or equal to the network before, nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import build_model, from_model
from daukit.rescale import Mode, remove_pools

CHANNELS, SIZE = 4, 16


class OwnNorm(nn.BatchNorm2d):
    """A class of one's own, which computes something else."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input.mean((2, 3), keepdim=True)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "batch": lambda n: nn.BatchNorm2d(n),
    "batch statistics": lambda n: nn.BatchNorm2d(n, track_running_stats=False),
    "plain batch": lambda n: nn.BatchNorm2d(n, affine=False),
    "instance": lambda n: nn.InstanceNorm2d(n),
    "group": lambda n: nn.GroupNorm(2, n),
    "local response": lambda n: nn.LocalResponseNorm(3),
    "softmax over rows": lambda n: nn.Softmax(2),
    "own": lambda n: OwnNorm(n),
    "dropout": lambda _: nn.Dropout(),
    "prelu": lambda n: nn.PReLU(n),
}
GATES: dict[str, Callable[[], nn.Module]] = {
    "average": lambda: nn.AdaptiveAvgPool2d(1),
    "maximum": lambda: nn.AdaptiveMaxPool2d((1, 1)),
    "grid": lambda: nn.AdaptiveAvgPool2d(2),
}


def _double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def _mean_away(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output - output.mean((2, 3), keepdim=True)


def _double_first(module: nn.Module, inputs: Any) -> Any:
    return (2 * inputs[0],)


def _prune(layer: nn.Module) -> None:
    torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "none": lambda layer: None,
    "output": lambda layer: layer.register_forward_hook(_double),
    "mean": lambda layer: layer.register_forward_hook(_mean_away),
    "input": lambda layer: layer.register_forward_pre_hook(_double_first),
    "backward": lambda layer: layer.register_full_backward_hook(lambda *_: None),
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "mask": _prune,
    "own parameter": lambda layer: layer.register_parameter("extra", nn.Parameter(torch.ones(1))),
    "own module": lambda layer: layer.add_module("extra", nn.Conv2d(1, 1, 1)),
}

JOINS = (
    "none", "add", "cat channels", "cat rows", "cat columns", "cat images", "scale", "shift", "position", "buffer",
    "constant", "columns", "sliced position", "size", "coordinates", "dropout", "dropout off", "namesake", "own mean",
    "gate average", "gate maximum", "gate grid", "gate call", "gate mean", "gate expanded", "gate resized",
    "vector gate", "gate twice", "two gates", "flipped", "cumsum",
)  # fmt: skip


def relu(x: Tensor) -> Tensor:
    """A namesake of torch's function, which looks at the whole map."""
    return x - x.mean((2, 3), keepdim=True)


torch.fx.wrap("relu")


class Net(nn.Module):
    """A pool, and behind it a layer, a join and a norm."""

    def __init__(self, norm: str = "none", join: str = "none", hook: str = "none", last: str = "dau") -> None:
        super().__init__()
        self.join = join
        self.stem, self.pool = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.MaxPool2d(2)
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        width = 2 * CHANNELS if join == "cat channels" else CHANNELS
        self.norm = NORMS[norm](width)
        self.last = daukit.DAUConv2d(width, 3, 2) if last == "dau" else nn.Conv2d(width, 3, 3)
        self.gate = GATES[join.removeprefix("gate ") if join in ("gate maximum", "gate grid") else "average"]()
        self.squeeze, self.excite = nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, CHANNELS, 1)
        self.down, self.up = nn.Linear(CHANNELS, 2), nn.Linear(2, CHANNELS)
        self.scale = nn.Parameter(torch.rand(CHANNELS, 1, 1))
        self.position = nn.Parameter(torch.randn(1, CHANNELS, SIZE // 2, SIZE // 2))
        self.register_buffer("table", torch.randn(SIZE // 2, SIZE // 2))
        HOOKS[hook](self.layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.pool(self.stem(x)))
        return self.last(self.norm(self._joined(x)))

    def _joined(self, x: Tensor) -> Tensor:
        joins: dict[str, Callable[[], Tensor]] = {
            "none": lambda: x,
            "add": lambda: x + F.relu(x),
            "cat channels": lambda: torch.cat([x, F.relu(x)], dim=1),
            "cat rows": lambda: torch.cat([x, x], dim=2),
            "cat columns": lambda: torch.cat([x, x], -1),
            "cat images": lambda: torch.cat([x, 2 * x]),
            "scale": lambda: x * self.scale.reshape(1, -1, 1, 1),
            "shift": lambda: (x + 0.5) / 3,
            "position": lambda: x + self.position,
            "buffer": lambda: x * self.table,
            "constant": lambda: x + torch.linspace(0, 1, SIZE // 2)[:, None],
            "columns": lambda: x + self.table[0],
            "sliced position": lambda: x + self.position[:, :, : x.shape[2], : x.shape[3]],
            "size": lambda: x / x.shape[2],
            "coordinates": lambda: x + torch.arange(x.shape[3]),
            "dropout": lambda: F.dropout(x, 0.5),
            "dropout off": lambda: F.dropout(x, 0.5, self.training),
            "namesake": lambda: relu(x),
            "own mean": lambda: x - x.mean((2, 3), keepdim=True),
            "gate call": lambda: x * torch.sigmoid(self._excited(F.adaptive_avg_pool2d(x, 1))),
            "gate mean": lambda: x * torch.sigmoid(self._excited(x.mean((2, 3), keepdim=True))),
            "gate expanded": lambda: x * self._excited(self.gate(x)).expand_as(x),
            "gate resized": lambda: x + F.interpolate(self._excited(self.gate(x)), size=x.shape[2:], mode="bilinear"),
            "gate grid": lambda: x * F.interpolate(self.gate(x), size=x.shape[2:]),
            "vector gate": lambda: x * self._vector(self.gate(x).flatten(1)).view(x.size(0), CHANNELS, 1, 1),
            "gate twice": lambda: self._gated(self._gated(x)),
            "two gates": lambda: x * (self.gate(x) + F.adaptive_avg_pool2d(x, 1)),
            "flipped": lambda: x + x.flip(3),
            "cumsum": lambda: x.cumsum(2),
        }
        return joins[self.join]() if self.join in joins else self._gated(x)

    def _gated(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self._excited(self.gate(x)))

    def _excited(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x)))

    def _vector(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(F.relu(self.down(x))))


def _rescaled(mode: Mode, size: tuple[int, int] | None, **config: str) -> tuple[nn.Module, nn.Module]:
    """The network before and after, in float64; ValueError where it is refused."""
    torch.manual_seed(0)
    network, factory = Net(**config).eval(), f"{__name__}:Net"
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_()
    network(torch.zeros(1, 1, SIZE, SIZE))  # what hooks keep is made
    before = from_model(network, architecture={"factory": factory, "config": config})
    after, _ = remove_pools(before, ["pool"], mode, model=factory, input_size=size)
    coarse, fine = (build_model(checkpoint, model=factory).double() for checkpoint in (before, after))
    return coarse, fine


def _assert_exact(coarse: nn.Module, fine: nn.Module) -> None:
    noise = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        old, new = coarse(noise), fine(noise)[..., ::2, ::2]
    assert new.shape == old.shape
    assert float((new - old).abs().max()) <= 1e-6 * float(old.abs().max())


EQUAL = {
    "none", "add", "cat channels", "cat images", "scale", "shift", "dropout off", "gate average", "gate maximum",
    "gate expanded", "gate resized", "vector gate", "gate twice",
}  # fmt: skip


@pytest.mark.parametrize("size", [(SIZE, SIZE), None], ids=["size", "no size"])
@pytest.mark.parametrize("join", JOINS)
def test_what_joins_a_finer_map_is_exact_or_refused_with_its_name(join: str, size: tuple[int, int] | None) -> None:
    if join in EQUAL:
        _assert_exact(*_rescaled("exact", size, join=join))
        return
    with pytest.raises(ValueError) as caught:
        _rescaled("exact", size, join=join)
    named = {"position": "'position'", "sliced position": "'position'", "buffer": "'table'"}
    named["gate grid"] = "come from gate"
    assert named.get(join, "removed stride") in str(caught.value) or "whole map for a gate" in str(caught.value)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_are_exact_or_refused(norm: str) -> None:
    if norm in ("none", "batch", "plain batch", "local response", "dropout", "prelu"):
        _assert_exact(*_rescaled("exact", None, norm=norm))
        return
    with pytest.raises(ValueError, match=r"removed stride|cannot trace"):
        _rescaled("exact", None, norm=norm)


@pytest.mark.parametrize("mode", ["paper", "exact"])
@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "none"])
def test_layers_that_do_more_than_their_type_says_are_not_replaced(hook: str, mode: Mode) -> None:
    with pytest.raises(ValueError, match=r"'layer' .* strides?.* (not known|its own)"):
        _rescaled(mode, (SIZE, SIZE), hook=hook)


@pytest.mark.parametrize(("norm", "join", "last"), [*itertools.product(("batch", "instance"), JOINS, ("dau", "conv"))])
def test_combinations_are_exact_or_refused(norm: str, join: str, last: str) -> None:
    try:
        coarse, fine = _rescaled("exact", (SIZE, SIZE), norm=norm, join=join, last=last)
    except ValueError:
        assert norm == "instance" or join not in EQUAL
        return
    _assert_exact(coarse, fine)


@pytest.mark.parametrize("join", ["gate average", "gate call", "gate mean", "gate resized", "vector gate"])
def test_gates_work_in_mode_paper(join: str) -> None:
    _, fine = _rescaled("paper", (SIZE, SIZE), join=join)
    assert fine(torch.zeros(1, 1, SIZE, SIZE).double()).shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize("join", ["position", "buffer", "constant", "columns", "sliced position"])
def test_what_has_a_size_of_its_own_is_refused_in_mode_paper_too(join: str) -> None:
    with pytest.raises(ValueError, match="lies behind a removed stride"):
        _rescaled("paper", None, join=join)


class Odd(nn.Module):
    """A network that is unusual as a whole."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.MaxPool2d(2)
        self.body, self.last = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3), nn.ReLU()), daukit.DAUConv2d(4, 3, 2)
        self.alias = nn.ModuleList([self.last, self.body[0]])
        if kind == "half":
            self.half()
        if kind == "tied":
            self.stem.bias = self.body[0].bias
        if kind == "hooked container":
            self.body.register_forward_hook(_double)
        if kind == "hooked network":
            self.register_forward_hook(_mean_away)
        if kind == "hooked pool":
            self.pool.register_forward_hook(_mean_away)
        if kind == "other forward":
            self.forward = lambda x: self.last(self.stem(x))  # type: ignore[method-assign]
        if kind == "frozen dropout":
            self.body[1] = nn.Dropout()
            self.body[1].train = lambda mode=True: self.body[1]  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.alias[0](self.body(self.pool(self.stem(x))))


@pytest.mark.parametrize("mode", ["paper", "exact"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("plain", None),
        ("half", None),
        ("tied", None),
        ("hooked container", None),
        ("hooked network", "cannot trace the network: it has hooks"),
        ("hooked pool", "'pool' must change"),
        ("other forward", "or another forward than its class"),
        ("frozen dropout", "stays in training mode"),
    ],
)
def test_unusual_networks_are_rescaled_as_they_run_or_refused(kind: str, reason: str | None, mode: Mode) -> None:
    torch.manual_seed(0)
    factory = f"{__name__}:Odd"
    before = from_model(Odd(kind).eval(), architecture={"factory": factory, "config": {"kind": kind}})
    if reason is not None:
        with pytest.raises(ValueError, match=reason):
            remove_pools(before, ["pool"], mode, model=factory, input_size=(SIZE, SIZE))
        return
    after, _ = remove_pools(before, ["pool"], mode, model=factory, input_size=(SIZE, SIZE))
    coarse, fine = (build_model(checkpoint, model=factory) for checkpoint in (before, after))
    assert [one.dtype for one in fine.parameters()] == [one.dtype for one in coarse.parameters()]
    if mode == "exact":
        _assert_exact(coarse.double(), fine.double())
