"""Only what the probed outputs can see is computed: the same numbers, from less."""

import random

import pytest
import torch
from torch import nn

import daukit
from daukit.erf import effective_receptive_field
from daukit.errors import NetworkError

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut, self.norm = nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        return torch.relu_(self.norm(self.conv2(self.conv1(x).relu())) + self.shortcut(x))


class UNet(nn.Module):
    """Down and up again, with skips: maps of several scales meet."""

    def __init__(self):
        super().__init__()
        self.high, self.middle, self.low = Residual(2, 3, 1), Residual(3, 4, 2), Residual(4, 5, 2)
        self.up, self.resize = nn.ConvTranspose2d(5, 4, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.Conv2d(11, 3, 3, padding=1)

    def forward(self, x):
        high = self.high(x)
        middle = self.middle(high)
        middle = torch.cat([middle, self.up(self.low(middle))], 1)
        return self.last(torch.cat([high, self.resize(middle)], 1))


class Inner(nn.Module):
    def forward(self, x):
        return x[:, :, 1:-4, 2:-1]


def displaced(low, high, **options):
    layer = daukit.DAUConv2d(2, 2, 2, max_displacement=None, **options)
    layer.mu.data.uniform_(low, high)
    return layer


def dau_network():
    """Displacements to one side only, strides and dilation: a map's position may see nothing of its own pixel."""
    return nn.Sequential(
        displaced(2, 4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        displaced(-4, -3, stride=2),
        nn.ReLU(),
        displaced(1, 3, dilation=2),
    )


NETWORKS = {
    "valid": (lambda: nn.Sequential(nn.Conv2d(2, 3, 5, 2), nn.MaxPool2d(3, 2), nn.Conv2d(3, 3, 3)), ["0", "2"]),
    "padded": (lambda: nn.Sequential(*(nn.Conv2d(2, 2, 5, 2, 2) for _ in range(3))), ["2"]),
    "padded with ones": (lambda: nn.Sequential(nn.ConstantPad2d(3, 1.0), nn.Conv2d(2, 2, 7), nn.AvgPool2d(2)), ["2"]),
    "ceil mode": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(2, 2, 3)), ["1"]),
    "local norm": (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.LocalResponseNorm(5), nn.Conv2d(6, 2, 3)), ["2"]),
    "u-net": (UNet, ["last"]),
    "inside a u-net": (UNet, ["low.conv2", "up", "high"]),
    "daus": (dau_network, ["0", "3"]),
    "all daus": (dau_network, ["0", "3", "5"]),
    "nearest": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, 2), nn.Upsample(scale_factor=3), nn.Conv2d(2, 2, 3)), ["2"]),
    "thirds": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 2, 3, 3), displaced(1, 4)), ["1"]),
    "cut edges": (
        lambda: nn.Sequential(nn.ZeroPad2d((4, -3, 1, -2)), Inner(), nn.Upsample(scale_factor=3), displaced(2, 4)),
        ["3"],
    ),
    "shuffle": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 8, 3), nn.PixelShuffle(2)), ["2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(96, 100), (180, 148), (44, 220)])
def test_a_crop_changes_nothing(name, size):
    factory, layers = NETWORKS[name]
    model, inputs = factory().double(), torch.randn(2, 2, *size, dtype=torch.float64)
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:].numel()))
    cropped = effective_receptive_field(model, layers, inputs)
    assert seen[-1] < inputs[0, 0].numel()
    whole = effective_receptive_field(model, layers, inputs, crop=False)
    assert seen[-1] == inputs[0, 0].numel()
    for one, other in zip(cropped, whole, strict=True):
        # A pixel's gradient is a sum over at most 9 channels x 49 taps in each of at most 8 layers.
        torch.testing.assert_close(one.map, other.map, rtol=0, atol=8 * 9 * 49 * EPS * float(other.map.max()))
        assert one.center == other.center and one.theory == other.theory and one.clipped == other.clipped


def test_a_field_at_the_border_is_cropped_with_the_border_where_it_was():
    """The probed position of a narrow map sees the zeros beyond both edges."""
    model = nn.Sequential(*(nn.Conv2d(2, 2, 7, padding=3) for _ in range(2))).double()
    inputs = torch.randn(1, 2, 5, 90, dtype=torch.float64)
    one, other = (effective_receptive_field(model, "1", inputs, crop=crop)[0] for crop in (True, False))
    torch.testing.assert_close(one.map, other.map, rtol=0, atol=2 * 2 * 49 * EPS)
    assert one.clipped and other.clipped


class Positions(nn.Module):
    """A learned number for every position of the map, as transformers add to their tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(1, 2, 40, 40))
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        return self.conv((x + self.embedding).relu())


class MiddleOf(nn.Module):
    """What it cuts out depends on how large the input is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        top = x.shape[2] // 3
        return self.conv(x[:, :, top:])


UNCROPPED = {
    "positions": (Positions, "conv"),
    "size-dependent": (MiddleOf, "conv"),
    "global gate": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2), nn.Conv2d(2, 2, 3)), "2"),
    "batch statistics": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Conv2d(2, 2, 3)), "2"
    ),
    "mirrored border": (lambda: nn.Sequential(nn.ReflectionPad2d(9), nn.Conv2d(2, 2, 3)), "1"),
    "adaptive pool": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Conv2d(2, 2, 3)), "1"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCROPPED)
def test_what_depends_on_the_whole_input_is_given_the_whole_input(name):
    factory, layer = UNCROPPED[name]
    model, inputs = factory().double(), torch.randn(1, 2, 40, 40, dtype=torch.float64)
    one, other = (effective_receptive_field(model, layer, inputs, crop=crop)[0] for crop in (True, False))
    assert torch.equal(one.map, other.map)


def test_an_early_layer_costs_the_same_however_large_the_input_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 11, 4), nn.MaxPool2d(3, 2))
    sizes = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    for side in (227, 908):
        effective_receptive_field(model, "1", torch.randn(1, 3, side, side))
    # 19 pixels, widened to the grid of 8; once whole, once cropped to look, once cropped to measure.
    assert sizes == [(227, 227), (24, 24), (24, 24), (908, 908), (24, 24), (24, 24)]


def random_layer(dice):
    """One of the operations whose maps move with their input, with random options."""
    pick, few = dice.randint, dice.choice((1, 2))
    middle = dice.uniform(-5, 5)
    return dice.choice(
        (
            lambda: nn.Conv2d(2, 2, (pick(1, 5), pick(1, 5)), pick(1, 3), pick(0, 3), few),
            lambda: nn.ConvTranspose2d(2, 2, pick(1, 4), pick(1, 3)),
            lambda: displaced(middle - 2, middle + 2, stride=few, dilation=pick(1, 2)),
            lambda: nn.MaxPool2d(pick(2, 3), pick(1, 3), pick(0, 1), ceil_mode=few == 1),
            lambda: nn.AvgPool2d(pick(1, 3), pick(1, 3)),
            lambda: nn.Upsample(scale_factor=pick(2, 3)),
            lambda: nn.Upsample(scale_factor=2, mode=dice.choice(("bilinear", "bicubic"))),
            lambda: nn.ZeroPad2d([pick(-2, 4) for _ in range(4)]),
            lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 8, 1), nn.PixelShuffle(2)),
            lambda: nn.LocalResponseNorm(3),
        )
    )()


def check_random_networks(seeds):
    """Of networks that can take their input, most are cropped; each shows the same field, within what it could see."""
    cropped = []
    for number in seeds:
        dice = random.Random(number)
        torch.manual_seed(number)
        layers = [module for _ in range(dice.randint(1, 6)) for module in (random_layer(dice), nn.Tanh())]
        model, name = nn.Sequential(*layers).double(), str(len(layers) - 1)
        inputs = torch.randn(1, 2, dice.randint(50, 90), dice.randint(50, 90), dtype=torch.float64)
        try:
            (whole,) = effective_receptive_field(model, name, inputs, crop=False)
        except (NetworkError, ValueError):
            continue  # its maps are smaller than its windows
        sizes = []
        model.register_forward_pre_hook(lambda module, args, sizes=sizes: sizes.append(args[0].shape[2:].numel()))
        (part,) = effective_receptive_field(model, name, inputs)
        cropped.append(sizes[-1] < inputs[0, 0].numel())
        # At most 12 layers, each a sum over at most 8 channels x 49 taps.
        rounding = 12 * 8 * 49 * EPS * float(whole.map.max())
        torch.testing.assert_close(part.map, whole.map, rtol=0, atol=rounding, msg=f"network {number}: {model}")
        for axis, size in enumerate(whole.theory.size):
            seen = (whole.map.sum(1 - axis) != 0).nonzero()
            assert int(seen.max() - seen.min()) < size, f"network {number}: {model}"
    assert sum(cropped) > 0.8 * len(cropped) > 0


@pytest.mark.slow
def test_sixty_random_networks_are_the_same_through_their_crops():
    check_random_networks(range(60))


@pytest.mark.slow
def test_a_thousand_more():
    check_random_networks(range(60, 1060))
