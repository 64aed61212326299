"""Plans from two networks, padded heads, both modes' errors, and limits: against definitions and forward passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import Checkpoint, build_model, from_model
from daukit.errors import NetworkError
from daukit.models import create_model
from daukit.models.alexnet import FACTORS
from daukit.models.structure import dau_layers
from daukit.nn import project_displacements
from daukit.rescale import Difference, Mode, compare, compare_modes, plan_like, remove_pools, rescale_factors

NARROW: dict[str, Any] = {"channels": [3, 4, 5, 5, 4], "hidden": 6, "num_classes": 5}
SMALL = {**NARROW, "input_size": [67, 67]}
SHALLOW: dict[str, Any] = {"channels": [3, 4, 5], "units": 2}
ROUNDING = 1e-12
"""What another order of summation may change in float64: thousands of terms at 1e-16 each."""


def plain(stride: int = 2, pool: str = "max", width: int = 2, extra: int = 1, ceil_mode: bool = False) -> nn.Sequential:
    """A strided convolution, a pool (max, average, none: no module at all; kept: at stride 1), and two layers."""
    network = nn.Sequential()
    if extra > 1:
        network.add_module("extra", nn.MaxPool2d(extra))
    network.add_module("conv1", nn.Conv2d(1, width, 3, stride=stride, padding=1))
    if pool == "average":
        network.add_module("pool", nn.AvgPool2d(2, ceil_mode=ceil_mode))
    elif pool != "none":
        network.add_module("pool", nn.MaxPool2d(2, stride=1 if pool == "kept" else 2))
    network.add_module("conv2", nn.Conv2d(width, 2, 3, padding=1))
    network.add_module("last", nn.AvgPool2d(2, ceil_mode=ceil_mode) if ceil_mode else nn.Conv2d(2, 1, 1))
    return network


def stranger() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 3))


def two_heads() -> nn.Module:
    return TwoHeads()


class TwoHeads(nn.Module):
    """Linear layers that read maps of different sizes; 16 x 16 images."""

    def __init__(self) -> None:
        super().__init__()
        self.pool1, self.pool2, self.flatten1, self.flatten2 = nn.MaxPool2d(2), nn.MaxPool2d(2), *_flattens()
        self.conv, self.far, self.near = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(16, 2), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool1(x))
        return self.near(self.flatten1(x)) + self.far(self.flatten2(self.pool2(x)))


def thirds() -> nn.Sequential:
    """A pool of stride 3 and a head over 2 x 4 positions: taps 3 apart, whose padding has no equal halves."""
    network = nn.Sequential()
    for name, module in {
        "pool": nn.MaxPool2d(3), "conv": nn.Conv2d(1, 2, 1), "flatten": nn.Flatten(), "head": nn.Linear(16, 3)
    }.items():  # fmt: skip
        network.add_module(name, module)
    return network


def _flattens() -> tuple[nn.Flatten, nn.Flatten]:
    return nn.Flatten(), nn.Flatten()


def _name(factory: Callable[..., nn.Module]) -> str:
    return f"{__name__}:{factory.__name__}"


def _checkpoint(factory: Callable[..., nn.Module] | str, **config: Any) -> Checkpoint:
    torch.manual_seed(0)
    network = create_model(factory, **config) if isinstance(factory, str) else factory(**config)
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.mu.uniform_(-3, 3)
            layer.weight.normal_()
    architecture = None if isinstance(factory, str) else {"factory": _name(factory), "config": config}
    return from_model(network, architecture=architecture)


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@torch.no_grad()
def _run(checkpoint: Checkpoint, image: Tensor) -> Tensor:
    return build_model(checkpoint, model=checkpoint.header.architecture.get("factory")).double()(image)


# Plans from two networks


@pytest.mark.parametrize("pools", ["removed", "stride1"])
def test_the_papers_plan_follows_from_the_two_definitions_of_alexnet(pools: str) -> None:
    # Section 6.1: a factor of two for layers 3, 4 and 5, and of four for layers 6 and 7.
    before = _checkpoint("alexnet_dau", **SMALL)
    plan = plan_like(before, "alexnet_dau", {"task": "segmentation", "pools": pools})
    assert (plan.pools, plan.strides) == (("pool2", "pool5"), ())
    assert {name: plan.factors[name] for name in FACTORS} == FACTORS
    assert (plan.factors["conv1"], plan.factors["pool1"]) == (1, 1)
    assert set(FACTORS) <= set(plan.checked)
    assert plan.missing == ("fc8",)  # which the other one calls score


def test_what_a_plan_makes_of_a_classifier_has_limits_and_dilations_of_the_second_definition() -> None:
    for name in ("alexnet", "alexnet_dau"):
        before = _checkpoint(name, **{**NARROW, "input_size": [227, 227]})
        plan = plan_like(before, name, {"task": "segmentation"})
        after, _ = remove_pools(before, plan.pools, strides=plan.strides, head_padding="same")
        dense, defined = build_model(after), create_model(name, **NARROW, task="segmentation")
        for layer in ("conv2", "conv3", "conv4", "conv5"):
            now, then = dense.get_submodule(layer), defined.get_submodule(layer)
            keys = ("dilation", "padding") if name == "alexnet" else ("dilation", "max_displacement")
            assert [getattr(now, key) for key in keys] == [getattr(then, key) for key in keys]
        # A map of 6 x 6 under fc6: the padded head is the one that the definition has.
        for key in ("kernel_size", "padding", "dilation", "stride"):
            assert getattr(dense.fc6, key) == getattr(defined.fc6, key)


def test_the_other_network_takes_the_options_of_the_files_where_nothing_is_said() -> None:
    config = {"width": 4, "depths": [1, 1, 1, 1], "num_classes": 3}
    plan = plan_like(_checkpoint("resnet50_dau", **config), "resnet50_dau", {"task": "segmentation"})
    assert plan.pools == ("pool4",)
    assert plan.factors["stage4.0.conv2"] == 2 and plan.factors["stage3.0.conv2"] == 1
    assert "stage4.0.conv2" in plan.checked
    assert "stage1.1.conv2" not in plan.factors  # with depths of its own, the other one would have had it


@pytest.mark.parametrize("pool", ["none", "kept"])
def test_strides_and_pools_are_found_whether_replaced_or_absent(pool: str) -> None:
    before = _checkpoint(plain)
    plan = plan_like(before, _name(plain), {"stride": 1, "pool": pool}, model=_name(plain))
    assert (plan.pools, plan.strides) == (("pool",), ("conv1",))
    assert plan.factors == {"conv1": 1, "conv2": 4, "last": 4} | ({"pool": 2} if pool == "kept" else {})
    assert plan.checked == tuple(plan.factors)


@pytest.mark.parametrize(
    ("like", "config", "message"),
    [
        ("alexnet_dua", {}, r"no model 'alexnet_dua'; did you mean 'alexnet_dau'\?"),
        ("alexnet_dau", {"tsk": "segmentation"}, r"no option 'tsk'; did you mean 'task'\?"),
        ("no.such.module:make", {}, "cannot import the factory"),
        (_name(plain), {}, "has every stride of the file's network"),
        (_name(plain), {"widht": 3}, r"no option 'widht'; did you mean 'width'\?"),
        (_name(plain), {"width": "two"}, "its construction failed with"),
        (
            _name(plain),
            {"stride": 3},
            r"'conv1' has stride \(2, 2\) and, in .*, \(3, 3\); a stride can be removed, not",
        ),
        (_name(plain), {"stride": 1, "extra": 2}, r"'conv1' reads a map reduced \(1, 1\) times, in .* \(2, 2\) times"),
        (_name(stranger), {}, "shares no layer"),
    ],
)
def test_networks_that_give_no_plan_are_refused(like: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, NetworkError), match=message):
        plan_like(_checkpoint(plain), like, config, model=_name(plain))


def test_a_coarser_network_gives_no_plan() -> None:
    with pytest.raises(ValueError, match=r"'pool' has stride \(1, 1\) and, in .*, \(2, 2\)"):
        plan_like(_checkpoint(plain, pool="kept"), _name(plain), {"pool": "max"}, model=_name(plain))


# Padded heads


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_same_heads_predict_at_every_position_and_as_valid_ones_inside(mode: Mode) -> None:
    before = _checkpoint("shallow_dau", **SHALLOW, input_size=[28, 36])
    valid, report_valid = remove_pools(before, ["pool2", "pool3"], mode)
    same, report = remove_pools(before, ["pool2", "pool3"], mode, head_padding="same")
    # The head reads 3 x 4 positions, 4 apart: it reaches over 8 and 12 more pixels, half of them before.
    assert (report_valid.head_position, report.head_position) == ((0, 0), (4, 6))
    image = _noise(2, 1, 28, 36)
    inside, whole = _run(valid, image), _run(same, image)
    assert whole.shape[2:] == ((11, 15) if mode == "exact" else (14, 18))
    assert (whole[..., 4:-4, 6:-6] - inside).abs().max() <= ROUNDING * inside.abs().max()
    if mode == "exact":
        coarse = _run(before, image)
        assert (whole[..., 4, 6] - coarse).abs().max() <= 1e-6 * coarse.abs().max()
    proofs = [compare(before, after, report.pools) for after in (valid, same)]
    assert [(proof.positions, proof.missing) for proof in proofs] == [(1, 0)] * 2
    assert proofs[0].largest == pytest.approx(proofs[1].largest, abs=ROUNDING)


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_same_heads_see_zeros_outside_of_the_map() -> None:
    before = _checkpoint(thirds)
    after, report = remove_pools(
        before, ["pool"], "exact", head_padding="same", model=_name(thirds), input_size=(6, 12)
    )
    # 2 x 4 taps, 3 apart, reach over 3 and 9 pixels more: 1 and 4 before, 2 and 5 behind.
    assert report.head_position == (1, 4)
    image = _noise(1, 1, 6, 12)
    t = {name: tensor.double() for name, tensor in before.tensors.items()}
    y = F.conv2d(F.max_pool2d(image, 3, stride=1), t["conv.weight"], t["conv.bias"])
    y = F.conv2d(F.pad(y, (4, 5, 1, 2)), t["head.weight"].reshape(3, 2, 2, 4), t["head.bias"], dilation=3)
    assert y.shape == (1, 3, 4, 10)
    fine, coarse = _run(after, image), _run(before, image)
    assert (fine - y).abs().max() <= ROUNDING * y.abs().max()
    assert (fine[..., 1, 4] - coarse).abs().max() <= 1e-6 * coarse.abs().max()


def test_a_file_with_a_padded_head_is_rescaled_on_exactly(tmp_path: Path) -> None:
    before = _checkpoint("shallow_dau", **SHALLOW, input_size=[28, 28])
    once, _ = remove_pools(before, ["pool3"], "exact", head_padding="same")
    daukit.write(once, tmp_path / "once.safetensors")
    once = daukit.read(tmp_path / "once.safetensors")
    twice, _ = remove_pools(once, ["pool2"], "exact")
    at_once, _ = remove_pools(before, ["pool2", "pool3"], "exact", head_padding="same")
    assert twice.header.modules == at_once.header.modules
    image = _noise(1, 1, 28, 28)
    coarse = _run(once, image)
    assert (_run(twice, image)[..., ::2, ::2] - coarse).abs().max() <= 1e-6 * coarse.abs().max()


def test_heads_that_cannot_be_padded_are_refused() -> None:
    before = _checkpoint("shallow_dau", **SHALLOW, input_size=[28, 28])
    with pytest.raises(ValueError, match="head_padding must be one of valid, same, got 'full'"):
        remove_pools(before, ["pool2"], head_padding="full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pads linear layers that become convolutions, and here none does"):
        remove_pools(_checkpoint(plain), ["pool"], head_padding="same", model=_name(plain))
    with pytest.raises(ValueError, match=r"different positions \(\(3, 3\) and \(7, 7\)\)"):
        remove_pools(
            _checkpoint(two_heads), ["pool1"], head_padding="same", model=_name(two_heads), input_size=(16, 16)
        )


# Both modes' errors


def test_both_modes_are_compared_whichever_was_made() -> None:
    before = _checkpoint("shallow_dau", **SHALLOW, input_size=[28, 28])
    made = {mode: remove_pools(before, ["pool2", "pool3"], mode) for mode in ("paper", "exact")}  # type: ignore[arg-type]
    apart = {mode: compare(before, after, ["pool2", "pool3"], positions=5) for mode, (after, _) in made.items()}
    for after, report in made.values():
        assert compare_modes(before, after, report) == apart
    assert apart["exact"].relative <= 1e-6 < 1e-3 < apart["paper"].relative
    # 28 pixels are the 3 x 3 positions of the head's one window; 68 are 8 x 8, where it fits 6 x 6 times.
    assert {(difference.positions, difference.input_size) for difference in apart.values()} == {(36, (68, 68))}


def test_a_mode_that_cannot_be_had_says_why() -> None:
    before = _checkpoint(plain, ceil_mode=True)
    after, report = remove_pools(before, ["pool"], "paper", model=_name(plain))
    results = compare_modes(before, after, report, model=_name(plain), input_size=(20, 20))
    assert isinstance(results["paper"], Difference)
    assert "'last' averages in ceil mode" in str(results["exact"])


# Limits


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_training_on_clips_nothing_after_a_rescale(mode: Mode) -> None:
    before = _checkpoint("shallow_dau", **SHALLOW, max_displacement=3.0, input_size=[28, 28])
    after, report = remove_pools(before, ["pool1", "pool2"], mode)
    network = build_model(after)
    held = {name: layer.mu.detach().clone() for name, layer in dau_layers(network).items()}
    project_displacements(network)
    for name, layer in dau_layers(network).items():
        assert torch.equal(layer.mu, held[name])
    assert report.beyond == 0
    # What the old limits would have clipped, counted by clipping.
    for layer in dau_layers(network).values():
        layer.max_displacement = 3.0
    project_displacements(network)
    clipped = [(layer.mu != held[name]).any(0).sum() for name, layer in dau_layers(network).items()]
    assert report.clipped == sum(map(int, clipped))
    assert (report.clipped > 0) == (mode == "paper")


def over_the_limit(form: str = "bilinear") -> nn.Sequential:
    """One layer with a displacement that is over its limit, as an optimiser leaves it without the projection."""
    layer = daukit.DAUConv2d(1, 1, 2, max_displacement=4.0, form=form)
    with torch.no_grad():
        layer.mu[:, 0, 0] = torch.tensor([[6.0, 1.0], [0.0, -1.0]])
    return nn.Sequential(layer)


def test_displacements_over_the_limit_stay_and_are_counted() -> None:
    before = from_model(over_the_limit(), architecture={"factory": _name(over_the_limit), "config": {}})
    after, report = rescale_factors(before, {"0": 2.0})
    assert after.tensors["0.mu"].abs().max() == 12
    assert (report.clipped, report.beyond) == (1, 1)
    _, doubled = rescale_factors(before, {"0": 1.5}, "paper")
    assert (doubled.layers[0].limit_after, doubled.layers[0].displacement_after) == (6, 9)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_the_window_of_the_general_form_keeps_its_margin_around_displacements_over_the_limit(factor: float) -> None:
    config = {"form": "gaussian"}
    before = from_model(over_the_limit("gaussian"), architecture={"factory": _name(over_the_limit), "config": config})
    after, _ = rescale_factors(before, {"0": factor})
    (old,), (new,) = before.header.layers, after.header.layers
    margin = old["window"] // 2 - 6
    assert 0 <= new["window"] // 2 - 6 * factor - max(0, margin) < 1
