"""Rescaling against forward passes of the network before, hand-built networks, and arithmetic on tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import Checkpoint, build_model, from_model
from daukit.errors import CheckpointError, NetworkError
from daukit.models import create_model
from daukit.models.factory import resolve_factory
from daukit.preprocessing import Preprocessing
from daukit.pruning import prune
from daukit.rescale import Mode, RescaleReport, compare, remove_pools, rescale_factors

POOLS: dict[str, Callable[[], nn.Module]] = {
    "max 2/2": lambda: nn.MaxPool2d(2),
    "max 3/2": lambda: nn.MaxPool2d(3, 2),
    "max 3/2 padded": lambda: nn.MaxPool2d(3, 2, padding=1),
    "max 2/2 padded": lambda: nn.MaxPool2d(2, 2, padding=1),
    "max 2/3": lambda: nn.MaxPool2d(2, 3),
    "max 2/2 ceil": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "max 3/2 ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max 3/2 padded ceil": lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max 2/3 ceil": lambda: nn.MaxPool2d(2, 3, ceil_mode=True),
    "max 2x3/2 padded ceil": lambda: nn.MaxPool2d((2, 3), 2, padding=(0, 1), ceil_mode=True),
    "max dilated": lambda: nn.MaxPool2d(2, 2, dilation=2),
    "average 2/2": lambda: nn.AvgPool2d(2),
    "average 3/2 padded": lambda: nn.AvgPool2d(3, 2, padding=1),
}
STRIDES = {name: 3 if "/3" in name else 2 for name in POOLS}
CHOICES = [c for n in (1, 2, 3) for c in itertools.combinations(("pool1", "pool2", "pool3"), n)]


def three_pools(pool: str) -> nn.Sequential:
    """DAU layers and plain convolutions around three equal pools, with maps that are negative as often as positive."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(1, 2, 3, padding=1),
        "pool1": POOLS[pool](),
        "conv2": daukit.DAUConv2d(2, 3, 2),
        "bn2": nn.BatchNorm2d(3),
        "pool2": POOLS[pool](),
        "conv3": nn.Conv2d(3, 2, 3, padding=2),
        "pool3": POOLS[pool](),
        "conv4": daukit.DAUConv2d(2, 2, 2, stride=2),
        "conv5": nn.Conv2d(2, 2, (1, 3), padding=(0, 1), stride=(1, 2)),
    }
    return _network(layers)


class Residual(nn.Module):
    """A pool, a residual block, a concatenation of two pooled branches, and a global pool."""

    def __init__(self, second: str = "max 3/2 padded", globally: str = "module") -> None:
        super().__init__()
        self.globally = globally
        self.stem, self.pool = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)
        self.body, self.skip = daukit.DAUConv2d(2, 2, 2), nn.Conv2d(2, 2, 1)
        self.left, self.right = nn.MaxPool2d(3, 2, padding=1), POOLS[second]()
        self.mix = nn.Conv2d(4, 3, 3, padding=1)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        x = F.relu(self.body(x) + self.skip(x))
        x = self.mix(torch.cat([self.left(x), self.right(x)], dim=1))
        if self.globally == "none":
            return x
        x = self.gap(x) if self.globally == "module" else x.mean(dim=(2, 3), keepdim=True)
        return self.head(self.flatten(x))


def alexnet_imitation() -> nn.Sequential:
    """AlexNet's plan: pools behind layers 1, 2 and 5, DAU layers 2 to 5, and three linear layers; 67 x 67 images."""
    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, 2, 11, stride=4, padding=2), "pool1": nn.MaxPool2d(3, 2)}
    layers |= {"conv2": daukit.DAUConv2d(2, 2, 2), "pool2": nn.MaxPool2d(3, 2)}
    layers |= {f"conv{i}": daukit.DAUConv2d(2, 2, 2) for i in (3, 4, 5)}
    layers |= {"pool5": nn.MaxPool2d(3, 2, ceil_mode=True), "flatten": nn.Flatten(), "fc6": nn.Linear(2, 4)}
    layers |= {"relu6": nn.ReLU(), "drop6": nn.Dropout(), "fc7": nn.Linear(4, 4), "fc8": nn.Linear(4, 5)}
    return _network(layers)


def single(kind: str) -> nn.Sequential:
    """A pool and one layer behind it, of the kind that a test asks for."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "reflect": lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        "same even": lambda: nn.Conv2d(1, 1, 2, padding="same"),
        "same odd": lambda: nn.Conv2d(1, 1, 3, padding="same"),
        "group norm": lambda: nn.GroupNorm(1, 1),
        "average ceil": lambda: nn.AvgPool2d(2, ceil_mode=True),
        "average border": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
        "zero pad": lambda: nn.ZeroPad2d((1, 2, 0, 1)),
        "constant pad": lambda: nn.ConstantPad2d((1, 2, 0, 1), 0.25),
        "gaussian": lambda: daukit.DAUConv2d(1, 2, 2, form="gaussian"),
        "learned": lambda: daukit.DAUConv2d(1, 2, 2, learn_sigma=True, groups=1),
        "flatten all": lambda: nn.Flatten(2),
    }
    return _network({"stem": nn.Conv2d(1, 1, 1), "pool": nn.MaxPool2d(2), "layer": layers[kind]()})


class Calls(nn.Module):
    """A pool and something that a graph cannot follow, or that no file can replace."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.pool, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Linear(18, 2)

    def forward(self, x: Tensor) -> Any:
        if self.kind == "decides" and x.sum() > 0:
            return x
        x = self.pool(self.conv(x))
        if self.kind == "twice":
            return self.conv(x.mean(1, keepdim=True))
        return (x, x) if self.kind == "two outputs" else self.head(torch.flatten(x, 1))


def _network(layers: dict[str, nn.Module]) -> nn.Sequential:
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def _name(factory: Callable[..., nn.Module]) -> str:
    return f"{__name__}:{factory.__name__}"


def _checkpoint(factory: Callable[..., nn.Module] | str, seed: int = 0, **config: Any) -> Checkpoint:
    """A checkpoint with random displacements within +-3 and random statistics; in memory, with no file behind it."""
    torch.manual_seed(seed)
    named = isinstance(factory, str)
    network = create_model(factory, **config) if isinstance(factory, str) else factory(**config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, daukit.DAUConv2d):
                module.mu.uniform_(-3, 3)
                module.weight.normal_()
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    architecture = None if named else {"factory": _name(factory), "config": config}
    return from_model(network, architecture=architecture)


def _build(checkpoint: Checkpoint) -> nn.Module:
    return build_model(checkpoint, model=checkpoint.header.architecture.get("factory")).double()


def _remove(
    checkpoint: Checkpoint, names: Sequence[str], mode: Mode, **options: Any
) -> tuple[Checkpoint, RescaleReport]:
    return remove_pools(checkpoint, names, mode, model=checkpoint.header.architecture.get("factory"), **options)


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@torch.no_grad()
def _assert_same_at_coarse_positions(
    before: Checkpoint, after: Checkpoint, image: Tensor, stride: int, until: str | None = None
) -> None:
    """The promise of mode exact, at every coarse position and to 1e-6 of the largest output."""
    coarse, fine = _output(_build(before), image, until), _output(_build(after), image, until)
    common = fine[..., ::stride, ::stride]
    assert common.shape == coarse.shape
    assert (common - coarse).abs().max() <= 1e-6 * coarse.abs().max()
    assert coarse.abs().max() > 0


def _output(network: nn.Module, image: Tensor, until: str | None) -> Tensor:
    """What the network returns, or what its module ``until`` does."""
    seen = [network(image)]
    if until is not None:
        network.get_submodule(until).register_forward_hook(lambda module, inputs, output: seen.append(output))
        network(image)
    return seen[-1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Maps of a few pixels: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Mode exact


@pytest.mark.parametrize("pool", POOLS)
def test_exact_equals_the_coarse_network_for_every_choice_of_three_pools(pool: str) -> None:
    before = _checkpoint(three_pools, pool=pool)
    for names in CHOICES:
        after, _ = _remove(before, names, "exact", input_size=(41, 46))
        for size in ((41, 46), (44, 39)):
            _assert_same_at_coarse_positions(before, after, _noise(1, 1, *size), STRIDES[pool] ** len(names))


def test_exact_holds_for_every_input_size_modulo_the_strides() -> None:
    before = _checkpoint(three_pools, pool="max 3/2 ceil")
    after, _ = _remove(before, ("pool1", "pool2", "pool3"), "exact")
    for size in range(33, 41):
        _assert_same_at_coarse_positions(before, after, _noise(1, 1, size, 73 - size), 8)


@pytest.mark.parametrize("names", CHOICES)
def test_exact_turns_the_linear_head_into_a_convolution_that_agrees_at_the_first_position(
    names: tuple[str, ...],
) -> None:
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=2, input_size=[30, 22])
    after, _ = remove_pools(before, names, "exact")
    image = _noise(2, 1, 30, 22)
    with torch.no_grad():
        coarse, fine = _build(before)(image), _build(after)(image)
    assert fine.shape[:2] == coarse.shape == (2, 10)
    assert (fine[:, :, 0, 0] - coarse).abs().max() <= 1e-6 * coarse.abs().max()


def test_exact_predicts_at_every_position_that_the_head_fits() -> None:
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    after, _ = remove_pools(before, ["pool2", "pool3"], "exact")
    # 28 -> 14 (pool1), 13 (window 2), 11 (window 2, taps 2 apart), and a head of 3 x 3 taps 4 apart fits 3 times.
    assert _build(after)(_noise(1, 1, 28, 28)).shape == (1, 10, 3, 3)


def test_exact_predictions_are_those_of_the_coarse_network_on_shifted_images() -> None:
    # Fine position (1, 3) is the coarse network's only one on the image shifted by (2, 6), since pool1 still strides.
    # Every layer's reach is 0 here, so that borders, where a shift brings other pixels, play no part.
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=2, sigma=0.05, input_size=[16, 16])
    tensors = {name: torch.zeros_like(t) if name.endswith(".mu") else t for name, t in before.tensors.items()}
    before = Checkpoint(before.header, tensors)
    after, _ = remove_pools(before, ["pool2", "pool3"], "exact")
    image = _noise(1, 1, 24, 24)
    with torch.no_grad():
        fine = _build(after)(image)
        coarse = _build(before)(image[..., 2:18, 6:22])
    assert (fine[0, :, 1, 3] - coarse[0]).abs().max() <= 1e-6 * coarse.abs().max()


@pytest.mark.parametrize(
    ("pool", "order"),
    [
        ("max 3/2 padded ceil", ("pool3", "pool1", "pool2")),
        ("max 2/2 padded", ("pool1", "pool2", "pool3")),
        ("average 2/2", ("pool3", "pool2", "pool1")),
    ],
)
def test_pools_removed_one_after_the_other_or_at_once_give_the_same_file(pool: str, order: tuple[str, ...]) -> None:
    before = in_turn = _checkpoint(three_pools, pool=pool)
    at_once, _ = _remove(before, order, "exact", input_size=(40, 40))
    for name in order:
        in_turn, _ = _remove(in_turn, [name], "exact", input_size=(40, 40))
    assert in_turn.header.modules == at_once.header.modules
    assert in_turn.tensors.keys() == at_once.tensors.keys()
    assert all(torch.equal(in_turn.tensors[name], tensor) for name, tensor in at_once.tensors.items())


@pytest.mark.parametrize("kind", ["gaussian", "learned", "same odd", "zero pad", "constant pad", "divisor"])
def test_exact_covers(kind: str) -> None:
    before = _checkpoint(single, kind=kind)
    after, _ = _remove(before, ["pool"], "exact", input_size=(23, 18))
    for size in ((23, 18), (22, 19)):
        _assert_same_at_coarse_positions(before, after, _noise(2, 1, *size), 2)


def test_exact_follows_residual_and_concatenated_branches() -> None:
    before = _checkpoint(Residual, globally="none")
    for names in (["pool"], ["left", "right"], ["pool", "left", "right"]):
        after, _ = _remove(before, names, "exact", input_size=(21, 26))
        _assert_same_at_coarse_positions(before, after, _noise(1, 1, 21, 26), 4 if len(names) == 3 else 2)


@pytest.mark.parametrize(("globally", "stop"), [("module", "gap"), ("function", "mean")])
def test_exact_stops_before_a_global_pool_and_is_exact_until_there(globally: str, stop: str) -> None:
    before = _checkpoint(Residual, globally=globally)
    after, report = _remove(before, ["pool"], "exact")
    assert report.stopped_before == (stop,)
    _assert_same_at_coarse_positions(before, after, _noise(1, 1, 21, 26), 2, until="mix")
    assert torch.equal(after.tensors["head.weight"], before.tensors["head.weight"])
    difference = compare(before, after, report.pools, model=_name(Residual), input_size=(21, 26))
    assert difference.relative <= 1e-6
    assert difference.positions == 6 * 7  # 21 x 26 -> 11 x 13 -> 6 x 7
    assert difference.missing == 0


def test_exact_leaves_displacements_alone_and_multiplies_dilation() -> None:
    before = _checkpoint("shallow_dau", channels=[2, 2, 2], units=2, input_size=[16, 16])
    after, report = remove_pools(before, ["pool1", "pool2"], "exact")
    for name in ("conv1", "conv2", "conv3"):
        assert torch.equal(after.tensors[f"{name}.mu"], before.tensors[f"{name}.mu"])
    changes = {layer.name: layer for layer in report.layers}
    assert [changes[f"conv{i}"].dilation_after for i in (1, 2, 3)] == [(1, 1), (2, 2), (4, 4)]
    assert changes["conv3"].limit_before == 4 and changes["conv3"].limit_after == 16
    assert report.clipped == 0


# Mode paper


def test_paper_equals_a_network_built_by_hand() -> None:
    before = _checkpoint(three_pools, pool="max 2/2")
    after, _ = _remove(before, ["pool1", "pool3"], "paper")
    t = {name: tensor.double() for name, tensor in before.tensors.items()}
    x = _noise(2, 1, 22, 18)
    y = F.conv2d(x, t["conv1.weight"], t["conv1.bias"], padding=1)
    y = daukit.dau_conv2d(y, t["conv2.weight"], 2 * t["conv2.mu"], t["conv2.bias"])
    y = F.batch_norm(y, t["bn2.running_mean"], t["bn2.running_var"], t["bn2.weight"], t["bn2.bias"])
    y = F.max_pool2d(y, 2)
    y = F.conv2d(y, t["conv3.weight"], t["conv3.bias"], padding=4, dilation=2)
    y = daukit.dau_conv2d(y, t["conv4.weight"], 4 * t["conv4.mu"], t["conv4.bias"], stride=2)
    y = F.conv2d(y, t["conv5.weight"], t["conv5.bias"], stride=(1, 2), padding=(0, 4), dilation=4)
    with torch.no_grad():
        assert torch.equal(_build(after)(x), y)


def test_paper_is_not_exact() -> None:
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    after, report = remove_pools(before, ["pool2", "pool3"], "paper")
    assert compare(before, after, report.pools).relative > 0.01


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_factors_of_alexnet_are_those_of_the_paper(mode: Mode) -> None:
    # Section 6.1: a factor of two for layers 3, 4 and 5, and of four for the fully connected ones.
    before = _checkpoint(alexnet_imitation)
    after, report = _remove(before, ["pool2", "pool5"], mode, input_size=(67, 67))
    factors = {layer.name: layer.factor for layer in report.layers}
    assert factors == {"conv1": 1, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2, "fc6": 4, "fc7": 4, "fc8": 4}
    # 67 -> 16 (conv1) -> 7 (pool1), and no pool behind it; or -> 5 (pool2) -> 3 (pool5: taps 2 apart, ceil adds 2).
    size = 7 if mode == "paper" else 3
    assert _build(after)(_noise(1, 3, 67, 67)).shape == (1, 5, size, size)


def test_paper_scales_displacements_limits_and_starting_points() -> None:
    before = _checkpoint("shallow_dau", channels=[2, 2, 2], units=2, max_displacement=3.0)
    after, report = rescale_factors(before, {"conv2": 2, "conv3": 1.5})
    for name, factor in (("conv1", 1), ("conv2", 2), ("conv3", 1.5)):
        assert torch.equal(after.tensors[f"{name}.mu"], factor * before.tensors[f"{name}.mu"])
    assert [layer["max_displacement"] for layer in after.header.layers] == [3, 6, 4.5]
    assert [layer["initialization"]["scale"] for layer in after.header.layers] == [1, 2, 1.5]
    assert [layer["dilation"] for layer in after.header.layers] == [[1, 1]] * 3
    assert [layer.factor for layer in report.layers] == [1, 2, 1.5]


@pytest.mark.parametrize("init", [{"name": "uniform", "low": -1.0, "high": 2.0}, {"name": "normal", "std": 0.5}])
def test_starting_points_of_other_initialisers_scale_by_their_lengths(init: dict[str, Any]) -> None:
    before = from_model(initialised(init), architecture={"factory": _name(initialised), "config": {"init": init}})
    after, _ = rescale_factors(before, {"0": 2})
    now = after.header.layers[0]["initialization"]
    assert now["name"] == init["name"]
    assert all(now[key] == 2 * before.header.layers[0]["initialization"][key] for key in now if key != "name")
    assert _build(after)[0].initialization == now


def initialised(init: dict[str, Any]) -> nn.Sequential:
    return nn.Sequential(daukit.DAUConv2d(1, 1, 2, init=init))


def test_factor_two_then_a_half_restores_every_bit() -> None:
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=4)
    doubled, _ = rescale_factors(before, {"conv2": 2.0, "conv3": 2.0})
    restored, _ = rescale_factors(doubled, {"conv2": 0.5, "conv3": 0.5})
    assert not torch.equal(doubled.tensors["conv3.mu"], before.tensors["conv3.mu"])
    for name, tensor in before.tensors.items():
        assert restored.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert restored.header.layers == before.header.layers
    assert [entry["operation"] for entry in restored.header.history] == ["rescale", "rescale"]


def test_exact_factor_multiplies_dilation_and_a_half_undoes_it() -> None:
    before = _checkpoint("shallow_dau", channels=[2, 2, 2], units=2)
    doubled, report = rescale_factors(before, {"conv3": 2}, "exact")
    assert doubled.header.layers[2]["dilation"] == [2, 2]
    assert report.layers[2].displacement_after == 2 * float(before.tensors["conv3.mu"].abs().max())
    image = _noise(1, 2, 9, 7)
    spread = torch.zeros(1, 2, 18, 14, dtype=torch.float64)
    spread[..., ::2, ::2] = image
    old, new = _build(before).conv3, _build(doubled).conv3
    torch.testing.assert_close(new(spread)[..., ::2, ::2], old(image))
    restored, _ = rescale_factors(doubled, {"conv3": 0.5}, "exact")
    assert restored.header.layers == before.header.layers
    with pytest.raises(ValueError, match=r"conv3: dilation 1 times 1\.5 is 1\.5"):
        rescale_factors(before, {"conv3": 1.5}, "exact")


def test_displacements_over_the_old_limit_are_counted() -> None:
    before = _checkpoint("shallow_dau", channels=[1, 1, 1], units=4, max_displacement=4.0)
    mu = torch.tensor([[1.5, -2.5, 0.0, 2.0], [0.0, 1.0, 2.5, -2.0]])  # times 2: 3, 5 (over), 5 in x (over), exactly 4
    before = Checkpoint(before.header, {**before.tensors, "conv2.mu": mu.reshape(2, 1, 1, 4)})
    _, report = rescale_factors(before, {"conv2": 2})
    change = report.layers[1]
    assert (change.clipped, report.clipped) == (2, 2)
    assert (change.limit_before, change.limit_after) == (4, 8)
    assert (change.displacement_before, change.displacement_after) == (2.5, 5)


def test_window_of_the_general_form_grows_with_the_limit_and_shrinks_back() -> None:
    before = _checkpoint("shallow_dau", channels=[2, 2, 2], units=2, learn_sigma="unit")
    doubled, _ = rescale_factors(before, {"conv3": 2})
    # The default window holds limit 4 and a margin of 2: side 13. Limit 8 and the same margin: side 21.
    assert [layer["window"] for layer in doubled.header.layers] == [13, 13, 21]
    assert torch.equal(doubled.tensors["conv3.sigma"], before.tensors["conv3.sigma"])
    assert _build(doubled).conv3.window == 21
    restored, _ = rescale_factors(doubled, {"conv3": 0.5})
    assert restored.header.layers == before.header.layers


def test_ragged_layers_are_rescaled() -> None:
    whole = _checkpoint("shallow_dau", channels=[3, 4, 5], units=4, input_size=[28, 28])
    before, _ = prune(whole, 0.3)
    assert before.tensors["conv3.mu"].shape[1] < whole.tensors["conv3.mu"].numel() // 2
    doubled, _ = rescale_factors(before, {"conv3": 2})
    assert torch.equal(doubled.tensors["conv3.mu"], 2 * before.tensors["conv3.mu"])
    assert torch.equal(_build(doubled).conv3.mu, 2 * _build(before).conv3.mu)
    after, _ = remove_pools(before, ["pool2"], "exact")
    assert after.header.layers[2]["ragged"]
    assert compare(before, after, ["pool2"]).relative <= 1e-6


# Files


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_rescaled_files_load_and_save_as_they_are(tmp_path: Path, mode: Mode) -> None:
    cases = [
        remove_pools(_checkpoint("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28]), ["pool2"], mode)[0],
        rescale_factors(_checkpoint("shallow_dau", channels=[3, 4, 5], units=2), {"conv2": 2, "conv3": 3}, mode)[0],
        _remove(_checkpoint(three_pools, pool="max 3/2 ceil"), ["pool1", "pool2"], mode)[0],
        _remove(_checkpoint(three_pools, pool="average 2/2"), ["pool1", "pool3"], mode, input_size=(40, 40))[0],
    ]
    for i, checkpoint in enumerate(cases):
        path = tmp_path / f"{i}.safetensors"
        daukit.write(checkpoint, path)
        again = from_model(daukit.load(path, model=checkpoint.header.architecture.get("factory")))
        assert again.header == checkpoint.header
        assert again.tensors.keys() == checkpoint.tensors.keys()
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_networks_of_ones_own_file_are_rescaled(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(
        "from torch import nn\n\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.pool, self.conv = nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1)\n"
        "    def forward(self, x):\n"
        "        return self.conv(self.pool(x))\n\n"
        "def make():\n"
        "    return nn.Sequential(Block())\n"
    )
    factory = f"{file}:make"
    before = from_model(resolve_factory(factory)(), architecture={"factory": factory, "config": {}})
    after, _ = _remove(before, ["0.pool"], "exact")
    _assert_same_at_coarse_positions(before, after, _noise(1, 1, 9, 12), 2)


def test_rescaling_changes_neither_the_checkpoint_it_was_given_nor_untouched_tensors() -> None:
    before = _checkpoint("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    copies = {name: tensor.clone() for name, tensor in before.tensors.items()}
    header = before.header.to_json()
    after, _ = remove_pools(before, ["pool2"])
    rescale_factors(before, {"conv1": 2})
    assert before.header.to_json() == header
    assert all(torch.equal(before.tensors[name], copy) for name, copy in copies.items())
    assert all(torch.equal(after.tensors[name], copies[name]) for name in ("conv1.mu", "conv2.mu", "bn3.running_mean"))
    assert after.header.history[-1]["arguments"] == {"mode": "paper", "remove_pool": ["pool2"]}


def test_tensors_keep_their_dtype_and_new_ones_take_it() -> None:
    before = _checkpoint(three_pools, pool="average 2/2")
    exact = {k: t if k.endswith("mu") or not t.is_floating_point() else t.double() for k, t in before.tensors.items()}
    before = Checkpoint(before.header, exact)
    for mode, new in (("paper", []), ("exact", ["pool3.weight"])):
        after, _ = _remove(before, ["pool2"], mode, input_size=(20, 20))  # type: ignore[arg-type]
        assert after.tensors.keys() - before.tensors.keys() == set(new)
        assert all(after.tensors[name].dtype == tensor.dtype for name, tensor in before.tensors.items())
        assert all(after.tensors[name].dtype == torch.float64 for name in new)


def test_input_size_comes_from_the_file_or_must_be_given() -> None:
    before = _checkpoint("shallow_dau", channels=[2, 2, 2], units=2)
    default, _ = remove_pools(before, ["pool2"])  # that of the architecture, 28 x 28
    factory = "daukit.models.shallow:shallow_dau"
    of_user = {"factory": factory, "config": {"channels": [2, 2, 2], "units": 2}}
    with pytest.raises(ValueError, match=r"classifier.*input size"):
        remove_pools(Checkpoint(replace(before.header, architecture=of_user), before.tensors), ["pool2"], model=factory)
    with pytest.raises(NetworkError, match="its forward failed on"):
        remove_pools(before, ["pool2"], input_size=(40, 40))
    given, _ = remove_pools(before, ["pool2"], input_size=(28, 28))
    preprocessing = Preprocessing((0.5,), (0.5,), "gray", (28, 28))
    read, _ = remove_pools(Checkpoint(replace(before.header, preprocessing=preprocessing), before.tensors), ["pool2"])
    assert given.header.modules == read.header.modules == default.header.modules


# Refusals


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_factors_that_are_not_positive_numbers_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="'conv2' must be positive and finite"):
        rescale_factors(_checkpoint("shallow_dau", channels=[1, 1, 1], units=1), {"conv2": factor})


def test_unknown_layers_pools_and_modes_are_refused() -> None:
    before = _checkpoint("shallow_dau", channels=[1, 1, 1], units=1, input_size=[8, 8])
    with pytest.raises(CheckpointError, match="no DAU layer 'conv9'"):
        rescale_factors(before, {"conv9": 2})
    with pytest.raises(ValueError, match="mode must be one of paper, exact"):
        rescale_factors(before, {"conv2": 2}, "atrous")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no pool 'pol2'; did you mean 'pool2'"):
        remove_pools(before, ["pol2"])
    with pytest.raises(ValueError, match="'conv2' is a DAUConv2d, not a pool"):
        remove_pools(before, ["conv2"])
    once, _ = remove_pools(before, ["pool2"], "exact")
    with pytest.raises(ValueError, match="'pool2' has stride 1 already"):
        remove_pools(once, ["pool2"], "exact")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("reflect", "pads by 'reflect'"),
        ("same even", "even kernel by 'same'"),
        ("group norm", "how to rescale a GroupNorm there is unknown"),
        ("average ceil", "averages in ceil mode"),
        ("average border", "count_include_pad=False"),
        ("flatten all", "only 1 to -1 can be replaced"),
    ],
)
def test_layers_without_an_exact_replacement_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _remove(_checkpoint(single, kind=kind), ["pool"], "exact", input_size=(8, 8))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("decides", "cannot trace the network"),
        ("two outputs", "must return one tensor"),
        ("flatten", r"calls flatten\(\) behind a removed stride"),
        ("twice", r"calls mean\(\) behind a removed stride"),
    ],
)
def test_networks_that_cannot_be_followed_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _remove(_checkpoint(Calls, kind=kind), ["pool"], "paper", input_size=(6, 6))


def test_branches_that_would_no_longer_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'cat' joins branches .* factors of 1 and 2"):
        _remove(_checkpoint(Residual), ["left"], "exact")
    # Windows of 2 and of 3 make maps of one size from a map of even size, but only while both stride.
    before = _checkpoint(Residual, second="max 2/2", globally="none")
    assert _build(before)(_noise(1, 1, 16, 16)).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="no longer fit each other"):
        _remove(before, ["left", "right"], "exact", input_size=(16, 16))
