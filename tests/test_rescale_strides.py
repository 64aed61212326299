"""Strides of layers removed: against the network before, networks built by hand, and the published dilation rule."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from rescaled import checkpoint_of, factory_name
from torch import Tensor, nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import Checkpoint, build_model
from daukit.rescale import Mode, compare, remove_pools

FLAGS = list(itertools.product((False, True), repeat=3))
STRIDED = {"conv1": 2, "conv2": 2, "pool": 2, "conv3": 3}
CHOICES = [names for n in (1, 2, 3, 4) for names in itertools.combinations(STRIDED, n)]


def strided(padding_mode: str = "zeros") -> nn.Sequential:
    """A plain convolution of stride 2, a DAU layer of stride 2, a pool, and a convolution of stride 3."""
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode=padding_mode))
    network.add_module("conv2", daukit.DAUConv2d(2, 3, 2, stride=2))
    network.add_module("pool", nn.MaxPool2d(3, 2, padding=1, ceil_mode=True))
    network.add_module("conv3", nn.Conv2d(3, 2, (2, 3), stride=3, padding=(0, 2), dilation=(2, 1)))
    network.add_module("conv4", daukit.DAUConv2d(2, 2, 2))
    return network


class Bottleneck(nn.Module):
    """A block of the first ResNets: 1x1, 3x3 with the stride, 1x1, and the way around them, then ReLU."""

    def __init__(self, inputs: int, stride: int, dilation: int, dau: bool, is_first: bool, width: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        plain = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = daukit.DAUConv2d(width, width, 2, stride=stride, dilation=dilation) if dau else plain
        self.bn2, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, 2 * width, 1, bias=False)
        self.downsample = nn.Conv2d(inputs, 2 * width, 1, stride, bias=False) if is_first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.conv3(y) + self.downsample(x))


def published(flags: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """(stride, dilation) of every 3x3 convolution when some stages' strides are replaced by dilation.

    The rule as torchvision publishes it (replace_stride_with_dilation; stages 2, 3 and 4): a stage that loses its
    stride doubles the dilation, and its first block still takes the dilation that was before.
    """
    rule = {}
    for i, stage in enumerate((2, 3, 4)):
        rule[f"stage{stage}.0.conv2"] = (1 if flags[i] else 2, 2 ** sum(flags[:i]))
        rule[f"stage{stage}.1.conv2"] = (1, 2 ** sum(flags[: i + 1]))
    return rule


def resnet_v1(flags: Sequence[bool] = (False, False, False), dau: bool = False) -> nn.Sequential:
    """A small ResNet v1 whose stages stride, or are dilated as ``published`` says."""
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False))
    network.add_module("pool1", nn.MaxPool2d(3, 2, padding=1))
    for stage, inputs in ((2, 4), (3, 6), (4, 6)):
        first, second = (published(flags)[f"stage{stage}.{block}.conv2"] for block in (0, 1))
        blocks = Bottleneck(inputs, *first, dau, is_first=True), Bottleneck(6, *second, dau, is_first=False)
        network.add_module(f"stage{stage}", nn.Sequential(*blocks))
    network.add_module("gap", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(6, 5))
    return network


def _strides_of(flags: Sequence[bool]) -> list[str]:
    stages = [stage for stage, flag in zip((2, 3, 4), flags, strict=True) if flag]
    return [f"stage{stage}.0.{layer}" for stage in stages for layer in ("conv2", "downsample")]


def _build(checkpoint: Checkpoint) -> nn.Module:
    return build_model(checkpoint, model=checkpoint.header.architecture["factory"]).double()


def _remove(checkpoint: Checkpoint, names: Sequence[str], mode: Mode, **options: Any) -> Checkpoint:
    pools = [name for name in names if "pool" in name]
    strides = [name for name in names if name not in pools]
    model = checkpoint.header.architecture["factory"]
    return remove_pools(checkpoint, pools, mode, strides=strides, model=model, **options)[0]


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@torch.no_grad()
def _assert_same_at_coarse_positions(before: nn.Module, after: nn.Module, image: Tensor, stride: int) -> None:
    coarse, fine = before(image), after(image)
    common = fine[..., ::stride, ::stride]
    assert common.shape == coarse.shape
    assert (common - coarse).abs().max() <= 1e-6 * coarse.abs().max()
    assert coarse.abs().max() > 0


# Exactness


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_exact_equals_the_coarse_network_for_every_choice_of_strides(names: tuple[str, ...]) -> None:
    before = checkpoint_of(strided)
    after = _remove(before, names, "exact", input_size=(61, 74))
    spread = 1
    for name in names:
        spread *= STRIDED[name]
    for size in ((61, 74), (72, 59)):
        _assert_same_at_coarse_positions(_build(before), _build(after), _noise(1, 1, *size), spread)


def test_exact_holds_for_every_input_size_modulo_the_strides() -> None:
    before = checkpoint_of(strided)
    coarse, fine = _build(before), _build(_remove(before, list(STRIDED), "exact"))
    for size in range(48, 72):
        _assert_same_at_coarse_positions(coarse, fine, _noise(1, 1, size, 119 - size), 24)


def test_the_first_layer_may_pad_by_anything_since_its_own_map_is_as_it_was() -> None:
    before = checkpoint_of(strided, padding_mode="reflect")
    after = _remove(before, ["conv1"], "exact")
    _assert_same_at_coarse_positions(_build(before), _build(after), _noise(1, 1, 61, 74), 2)


def test_strides_removed_one_after_the_other_or_at_once_give_the_same_file() -> None:
    before = in_turn = checkpoint_of(strided)
    at_once = _remove(before, list(STRIDED), "exact")
    for name in ("conv3", "conv1", "pool", "conv2"):
        in_turn = _remove(in_turn, [name], "exact")
    assert in_turn.header.modules == at_once.header.modules
    assert all(torch.equal(in_turn.tensors[name], tensor) for name, tensor in at_once.tensors.items())


def test_the_comparison_of_the_library_follows_removed_strides() -> None:
    before = checkpoint_of(resnet_v1, dau=True)
    names = _strides_of((True, False, True))
    after = _remove(before, names, "exact")
    difference = compare(before, after, [], strides=names, model=factory_name(resnet_v1), input_size=(65, 50))
    assert difference.relative <= 1e-6
    assert (difference.positions, difference.missing) == (3 * 2, 0)  # 65 x 50 at stride 32
    worse = _remove(before, names, "paper")
    assert compare(before, worse, [], strides=names, model=factory_name(resnet_v1), input_size=(65, 50)).relative > 1e-3


# Mode paper


def test_paper_equals_a_network_built_by_hand() -> None:
    before = checkpoint_of(strided)
    after = _remove(before, ["conv1", "conv2", "conv3"], "paper")
    t = {name: tensor.double() for name, tensor in before.tensors.items()}
    x = _noise(2, 1, 41, 38)
    y = F.conv2d(x, t["conv1.weight"], t["conv1.bias"], padding=1)
    y = daukit.dau_conv2d(y, t["conv2.weight"], 2 * t["conv2.mu"], t["conv2.bias"])
    y = F.max_pool2d(y, 3, 2, padding=1, ceil_mode=True)
    y = F.conv2d(y, t["conv3.weight"], t["conv3.bias"], padding=(0, 8), dilation=(8, 4))
    y = daukit.dau_conv2d(y, t["conv4.weight"], 12 * t["conv4.mu"], t["conv4.bias"])
    with torch.no_grad():
        assert torch.equal(_build(after)(x), y)
    assert [layer["stride"] for layer in after.header.layers] == [[1, 1], [1, 1]]
    assert [layer["max_displacement"] for layer in after.header.layers] == [8, 48]


def test_a_report_names_strides_before_and_after_and_the_file_remembers_them() -> None:
    before = checkpoint_of(strided)
    after, report = remove_pools(before, ["pool"], "exact", strides=["conv2"], model=factory_name(strided))
    assert (report.pools, report.strides) == (("pool",), ("conv2",))
    rows = {layer.name: (layer.factor, layer.stride_before, layer.stride_after) for layer in report.layers}
    assert rows == {
        "conv1": (1, (2, 2), (2, 2)),
        "conv2": (1, (2, 2), (1, 1)),
        "conv3": (4, (3, 3), (3, 3)),
        "conv4": (4, (1, 1), (1, 1)),
    }
    assert after.header.modules["conv2"] == {"type": "DAUConv2d", "stride": [1, 1]}
    arguments = {"mode": "exact", "remove_pool": ["pool"], "remove_stride": ["conv2"]}
    assert after.header.history[-1]["arguments"] == arguments


# Residual networks


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["paper", "exact"])
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_convolutions_are_dilated_as_torchvision_publishes_it(flags: tuple[bool, ...], mode: Mode) -> None:
    before = checkpoint_of(resnet_v1)
    network = _build(_remove(before, _strides_of(flags), mode))
    for name, (stride, dilation) in published(flags).items():
        conv = network.get_submodule(name)
        assert (conv.stride, conv.dilation, conv.padding) == ((stride,) * 2, (dilation,) * 2, (dilation,) * 2), name
    reference = resnet_v1(flags).double().eval()
    reference.load_state_dict(before.tensors)
    image = _noise(1, 3, 65, 50)
    with torch.no_grad():
        assert (network(image) - reference(image)).abs().max() <= 1e-12 * reference(image).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("flags", FLAGS[1:], ids=str)
def test_residual_daus_are_exact_for_every_combination_of_stages(flags: tuple[bool, ...]) -> None:
    before = checkpoint_of(resnet_v1, dau=True)
    coarse, fine = (
        nn.Sequential(*list(_build(checkpoint).children())[:-3])
        for checkpoint in (before, _remove(before, _strides_of(flags), "exact"))
    )
    for size in ((65, 50), (40, 71)):
        _assert_same_at_coarse_positions(coarse, fine, _noise(1, 3, *size), 2 ** sum(flags))


def test_a_branch_that_would_still_stride_is_named() -> None:
    before = checkpoint_of(resnet_v1)
    message = r"joins branches .* factors of 1 and 2; .* \(still striding: stage3\.0\.downsample\)"
    with pytest.raises(ValueError, match=message):
        _remove(before, ["stage3.0.conv2"], "exact")


# Refusals


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv5"], r"no strided layer 'conv5'; did you mean 'conv3'\? \(strided layers: conv1, conv2, conv3\)"),
        (["pool"], r"'pool' is a MaxPool2d, not a strided layer .* use (names|--remove-pool)"),
        (["conv4"], "strided layer 'conv4' has stride 1 already"),
    ],
)
def test_names_of_no_strided_layer_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        remove_pools(checkpoint_of(strided), [], strides=names, model=factory_name(strided))


def test_strided_layers_are_no_pools() -> None:
    with pytest.raises(ValueError, match=r"'conv1' is a Conv2d, not a pool .* use (strides|--remove-stride)"):
        remove_pools(checkpoint_of(strided), ["conv1"], model=factory_name(strided))


def uncalled() -> nn.Sequential:
    network = nn.Sequential(nn.Conv2d(1, 1, 3))
    network[0].pool = nn.MaxPool2d(2)
    return network


def test_a_pool_that_is_never_called_is_not_offered_as_one() -> None:
    with pytest.raises(ValueError, match=r"'0.pool' is a MaxPool2d, not a pool that the network calls \(pools: none\)"):
        remove_pools(checkpoint_of(uncalled), ["0.pool"], model=factory_name(uncalled))


def uneven() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 3, stride=(1, 2)))


def test_strides_that_differ_on_the_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'0' has stride \(1, 2\); rescaling needs the same stride on both axes"):
        remove_pools(checkpoint_of(uneven), [], strides=["0"], model=factory_name(uneven))
