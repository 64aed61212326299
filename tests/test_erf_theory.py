"""Theoretical receptive fields against published tables, hand arithmetic, and the measured extent of gradients."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import daukit
from daukit.erf import effective_receptive_field, theoretical_receptive_field


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def theory(model, layer, *size, channels=1, **options):
    (field,) = theoretical_receptive_field(model, layer, torch.randn(1, channels, *size), **options)
    return field


ALEXNET_V2 = nn.Sequential(
    nn.Conv2d(1, 1, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 5, padding=2), nn.MaxPool2d(3, 2),
    nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(3, 2),
)  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "size", "stride"),
    [(0, 11, 4), (1, 19, 8), (2, 51, 8), (4, 99, 16), (5, 131, 16), (6, 163, 16), (7, 195, 32)],
)
def test_alexnet_has_the_receptive_fields_of_araujo_et_al(layer, size, stride):
    field = theory(ALEXNET_V2, str(layer), 227, 227)
    assert (field.size, field.stride) == ((size, size), (stride, stride))


def test_vgg_16_has_the_receptive_field_of_araujo_et_al():
    layers = []
    for convolutions in (2, 2, 3, 3, 3):
        layers += [*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(convolutions)), nn.MaxPool2d(2)]
    field = theory(nn.Sequential(*layers), str(len(layers) - 1), 64, 64)
    assert (field.size, field.stride) == ((212, 212), (32, 32))


class Bottleneck(nn.Module):
    """Strides in the 3x3 convolution, and in a 1x1 pool beside it."""

    def __init__(self, stride):
        super().__init__()
        self.reduce, self.conv, self.expand = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, stride, 1), nn.Conv2d(1, 1, 1)
        self.stride = stride

    def forward(self, x):
        y = self.expand(self.conv(self.reduce(x).relu()).relu())
        return (y + functional.max_pool2d(x, 1, self.stride)).relu_()


@pytest.mark.parametrize(
    ("depths", "size"), [((3, 4, 6, 3), 483), ((3, 4, 23, 3), 1027), ((3, 8, 36, 3), 1507)], ids=["50", "101", "152"]
)
def test_resnets_v1_have_the_receptive_fields_of_araujo_et_al(depths, size):
    layers = [nn.Conv2d(1, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    for stage, blocks in enumerate(depths):  # in these, the last block of a stage strides
        layers += [Bottleneck(2 if block == blocks - 1 and stage < 3 else 1) for block in range(blocks)]
    field = theory(nn.Sequential(*layers), str(len(layers) - 1), 64, 64)
    assert (field.size, field.stride, field.center) == ((size, size), (32, 32), (0, 0))


NETWORKS = {
    "odd kernels": nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 3, stride=2, padding=1)),
    "even kernels": nn.Sequential(nn.Conv2d(1, 1, 4, padding=1), nn.Conv2d(1, 1, 2, stride=2)),
    "valid windows": nn.Sequential(nn.Conv2d(1, 1, 3), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 3)),
    "dilation": nn.Sequential(nn.Conv2d(1, 1, 3, dilation=3, padding=1), nn.Conv2d(1, 1, 2, dilation=2)),
    "uneven axes": nn.Sequential(nn.Conv2d(1, 1, (3, 5), stride=(2, 3), padding=(0, 2)), nn.Conv2d(1, 1, 3)),
    "padding modules": nn.Sequential(nn.ZeroPad2d((3, 0, 1, 2)), nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3)),
    "replicated border": nn.Sequential(nn.ReplicationPad2d((2, 0, 0, 1)), nn.Conv2d(1, 1, 3, padding=1)),
    "strides of 32": nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1) for _ in range(5))),
    "adaptive pool": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AdaptiveAvgPool2d(16)),
    "same padding": nn.Sequential(nn.Conv2d(1, 1, 5, padding="same"), nn.Conv2d(1, 1, 3)),
    "pool without a stride": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(3)),
    "deconvolution": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1)),
    "nearest upsampling": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2)),
    "bilinear upsampling": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
    "aligned corners": nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(size=(90, 81), mode="bilinear", align_corners=True)
    ),
}


def uniform(model):
    """The model in float64 with equal positive weights in every convolution and no biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 0.25)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.double()


RESIZING = {"adaptive pool", "deconvolution", "nearest upsampling", "bilinear upsampling", "aligned corners"}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(160, 160), (161, 163)])
def test_the_arithmetic_agrees_with_what_a_uniform_network_shows(name, size):
    model = uniform(NETWORKS[name])
    inputs = torch.ones(1, 1, *size, dtype=torch.float64)
    (field,) = effective_receptive_field(model, str(len(model) - 1), inputs, crop=False)
    assert field.border_mass == 0
    assert all(abs(a - b) <= 1 for a, b in zip(field.center, field.centroid, strict=True))
    for axis, bound in enumerate(field.theory.size):
        seen = (field.map.sum(1 - axis) != 0).nonzero()
        extent = int(seen.max() - seen.min()) + 1
        # Windows only stride; what resizes sees less in some phases than in others.
        assert extent <= bound if name in RESIZING else extent == bound


def displaced(mu, **options):
    layer = daukit.DAUConv2d(1, 1, mu.shape[1], bias=False, **options).double()
    layer.mu.data[:] = mu[:, None, None, :]
    layer.weight.data.fill_(1.0)
    return layer


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_field_of_a_dau_layer_grows_with_its_displacements(dilation):
    mu = torch.tensor([[-1.5, 0.25], [2.0, 3.5]], dtype=torch.float64)
    layer = displaced(mu, max_displacement=6.0, dilation=dilation)
    (field,) = effective_receptive_field(layer, "", torch.ones(1, 1, 61, 61, dtype=torch.float64), crop=False)
    rows, columns = (field.map != 0).nonzero().T
    radius = 3  # of the blur: ceil(5 * 0.5)
    # Taps -2..1 and 2..4; dilated ones lie 2 pixels apart.
    assert field.theory.size == (dilation * (3 + 2 * radius) + 1, dilation * (2 + 2 * radius) + 1)
    assert field.theory.size == (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1)
    assert field.limit.size == (dilation * (12 + 2 * radius) + 1,) * 2
    assert theory(layer.float(), "", 61, 61, limits=True) == field.limit
    assert field.center == (30.0, 30.0)


def test_a_layer_without_a_limit_counts_by_its_displacements_alone():
    mu = torch.tensor([[-1.0], [9.0]], dtype=torch.float64)
    field = theory(displaced(mu, max_displacement=None).float(), "", 31, 31, limits=True)
    assert field.size == (7, 7)


class Residual(nn.Module):
    """A stride-2 block with a 1x1 shortcut and a gate, as in residual networks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(2, 2, 1, stride=2)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return torch.relu_(y * y.mean((2, 3), keepdim=True).sigmoid() + self.shortcut(x))


def test_a_residual_network_at_224_looks_at_pixel_96_not_at_the_middle():
    stem = nn.Sequential(nn.Conv2d(1, 2, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1))
    model = nn.Sequential(stem, Residual(), Residual(), Residual())
    (field,) = effective_receptive_field(model, "3", torch.randn(1, 1, 224, 224), "signed")
    # A 7x7 map, so that 3 is probed: 3 * 32 by strides alone, since every window is padded to its middle.
    assert field.center == (96.0, 96.0)


def test_a_gate_may_bring_in_everything_but_not_move_the_center():
    stem = nn.Sequential(nn.Conv2d(1, 2, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1))
    model = nn.Sequential(stem, Residual(), Residual(), Residual())
    assert theory(model, "3", 224, 224).size == (None, None)
    assert theory(model, "3", 224, 224).looks_at((3, 3)) == (96.0, 96.0)


class Tokens(nn.Module):
    """Patches become tokens, then a map again; between the two, ``mix``."""

    def __init__(self, mix):
        super().__init__()
        self.patches, self.mix, self.last = nn.Conv2d(1, 8, 4, 4), mix, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.patches(x)
        tokens = self.mix(x.flatten(2).transpose(1, 2))
        return self.last(tokens.transpose(1, 2).reshape(x.shape))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens):
        return tokens + self.heads(tokens, tokens, tokens, need_weights=False)[0]


class Windows(nn.Module):
    """Rows of the map change places, which no stride can tell."""

    def forward(self, tokens):
        return tokens.unflatten(1, (2, -1)).flip(1).flatten(1, 2)


@pytest.mark.parametrize(
    ("mix", "size", "center"),
    [
        (nn.Linear(8, 8), (12, 12), (1.5, 1.5)),
        (nn.LayerNorm(8), (12, 12), (1.5, 1.5)),
        (Attention(), (None, None), (1.5, 1.5)),
    ],
    ids=["linear", "norm", "attention"],
)
def test_tokens_are_followed_through_reshapes(mix, size, center):
    field = theory(Tokens(mix), "last", 32, 32)
    assert (field.stride, field.size, field.center) == ((4, 4), size, center)


def test_a_center_is_not_made_up_where_positions_changed_places():
    assert theory(Tokens(Windows()), "last", 32, 32) is None
    (field,) = effective_receptive_field(Tokens(Windows()), "last", torch.randn(1, 1, 32, 32))
    assert field.center is None and field.theory is None and field.origin == field.centroid


class ChannelsLast(nn.Module):
    """A ConvNeXt block: the channels go last for the norm and the linear layers."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.mlp = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))

    def forward(self, x):
        return x + self.mlp(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_channels_last_blocks_have_the_field_of_their_convolutions():
    model = nn.Sequential(nn.Conv2d(1, 4, 4, 4), ChannelsLast(), ChannelsLast())
    assert theory(model, "2", 32, 32).size == (4 + 4 * 6 * 2,) * 2


class Functions(nn.Module):
    """No module but one: pads, slices, shuffles, joins and an in-place change, all by functions."""

    def __init__(self):
        super().__init__()
        self.last = nn.Identity()

    def forward(self, x):
        y = functional.avg_pool2d(functional.pad(x, (2, 0, 2, 0)), 2)  # 2 p - 2, 2 p - 1
        y = functional.pixel_shuffle(torch.cat([y, y, y.sin(), y], 1), 2)  # the two beginning at p or p - 1, minus 2
        z = x[:, :, 1:, 1:]
        z = functional.pad(z, (0, 1, 0, 1))
        z += y[:, :, :-2, :-2]
        return self.last(z.amax(1, keepdim=True))


def test_functions_are_followed_like_modules():
    field = theory(Functions(), "last", 32, 32)
    # The slice looks at p + 1 alone, the pool at least at p - 3 and at most at p - 1.
    assert field.size == (5, 5)
    assert field.stride == (1.0, 1.0)


def test_a_part_of_a_map_that_is_written_to_loses_the_trace_instead_of_lying():
    class Patched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            y = x.clone()
            y[:, :, :4] += x.mean((2, 3), keepdim=True)
            return self.conv(y)

    assert theory(Patched(), "conv", 16, 16) is None


@pytest.mark.parametrize("name", ["alexnet_dau", "resnet50_dau", "deeplabv3plus_dau", "cifar10"])
def test_the_networks_of_the_paper_have_a_finite_field_at_their_last_layer_of_windows(name):
    model = daukit.create_model(name)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | daukit.DAUConv2d)]
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d | daukit.DAUConv2d))
    field = theory(model, layers[len(layers) // 2], 96, 96, channels=channels)
    assert all(size is not None and math.isfinite(size) for size in field.size)
