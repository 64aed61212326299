"""Large images in tiles: the output is the whole image's, or an error says why it could not be."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.errors import DataError
from daukit.evaluation import Tiled

SIZES = {"width": 2, "depths": [1, 1, 1, 1], "num_classes": 3}
NEAR = {"max_displacement": 1.5, "sigma": 0.3}
NETWORKS = {
    "alexnet": ("alexnet", {"task": "segmentation", "channels": [2, 3, 3, 3, 3], "hidden": 4, "num_classes": 3}),
    "resnet": ("resnet50_dau", {"task": "segmentation", **SIZES, **NEAR}),
    "deeplab": ("deeplabv3plus", {**SIZES, "features": 3, "image_pool": False, "aspp": False}),
    "srn": ("srn_deblur", {"width": 2, "blocks": 1, "scales": 2}),
    "srn_dau": ("srn_deblur_dau", {"width": 2, "blocks": 1, "scales": 1, **NEAR}),
}


def network(name):
    torch.manual_seed(0)
    factory, options = NETWORKS[name]
    model = daukit.create_model(factory, **options).double().eval()
    for parameter in model.parameters():  # classes may start with weights of zero, which no tile could get wrong
        if not parameter.any():
            nn.init.normal_(parameter)
    return model


def image(*size, channels=3):
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [
        ("alexnet", (413, 370), (390, 344)),
        pytest.param("deeplab", (481, 337), (280, 300), marks=pytest.mark.slow),
        pytest.param("resnet", (493, 474), (450, 460), marks=pytest.mark.slow),
        pytest.param("srn", (470, 501), (460, 490), marks=pytest.mark.slow),
        pytest.param("srn_dau", (285, 275), (270, 270), marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_tiles_say_what_the_whole_image_says(name, size, tile):
    model, seen = network(name), []
    tiled = Tiled(model, tile, channels=3)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
    found = tiled(image(*size))
    handle.remove()
    assert len(seen) >= 4 and all(h <= tile[0] and w <= tile[1] for h, w in seen)
    torch.testing.assert_close(found, model(image(*size)))


@torch.no_grad()
def test_an_image_that_fits_into_a_tile_is_left_whole():
    model = network("alexnet")
    assert torch.equal(Tiled(model, (400, 400), channels=3)(image(399, 400)), model(image(399, 400)))


@st.composite
def stacks(draw):
    """Convolutions, pools and resizes of any strides, paddings and dilations, back and forth."""
    layers, stride = [], 1
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.integers(1, 4))
        kind = draw(st.sampled_from(["convolution", "pool", "up", "dau"]))
        step = draw(st.integers(1, 2 if stride < 8 else 1))
        if kind == "convolution":
            dilation = draw(st.integers(1, 2))
            layers.append(nn.Conv2d(2, 2, kernel, step, draw(st.integers(0, kernel)), dilation))
        elif kind == "pool":
            layers.append(nn.MaxPool2d(kernel, step, draw(st.integers(0, kernel // 2))))
        elif kind == "dau":
            layers.append(daukit.DAUConv2d(2, 2, 2, max_displacement=2.0, sigma=0.3, stride=step))
        elif stride % 2 == 0:
            layers.append(nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1))
            step = 0.5
        stride *= step if layers else 1
    return nn.Sequential(*layers, nn.Conv2d(2, 2, 1))


@given(stacks(), st.integers(60, 90), st.integers(60, 90), st.integers(0, 20))
@settings(max_examples=15, deadline=None, derandomize=True)
@torch.no_grad()
def test_tiles_of_any_network_of_windows_say_what_the_whole_image_says(model, height, width, more):
    model = model.double().eval()
    try:
        tiled = Tiled(model, (1, 1), channels=2)
    except ValueError as error:
        least = [int(number) for number in re.findall(r"\d+", str(error).rpartition("at least")[2])]
        tiled = Tiled(model, (least[0] + more, least[1] + 12), channels=2)
    torch.testing.assert_close(tiled(image(height, width, channels=2)), model(image(height, width, channels=2)))


class _Gated(nn.Module):
    def forward(self, input):
        return input * input.mean((2, 3), keepdim=True)


class _Located(nn.Module):
    def forward(self, input):
        return input + torch.arange(input.shape[3], dtype=input.dtype)


class _Fifths(nn.Module):
    def forward(self, input):
        return F.interpolate(F.adaptive_avg_pool2d(input, 5), size=input.shape[2:])


@pytest.mark.parametrize("model", [_Gated(), _Located(), _Fifths(), nn.GroupNorm(1, 3), nn.ReflectionPad2d(1)])
def test_a_network_that_looks_at_the_whole_image_takes_no_tiles(model):
    with pytest.raises(ValueError, match="takes no tiles: what it says of a pixel depends on the whole image"):
        Tiled(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), model), (64, 64), channels=3)


def test_global_pooling_of_deeplab_is_one_of_the_reasons():
    options = {**NETWORKS["deeplab"][1], "image_pool": True}
    with pytest.raises(ValueError, match=r"deeplabv3plus takes no tiles: .* global pool"):
        Tiled(daukit.create_model("deeplabv3plus", **options), (256, 256), channels=3)


def test_a_tile_must_hold_what_a_position_depends_on():
    model = nn.Sequential(*(nn.Conv2d(1, 1, 5, padding=2) for _ in range(3)))
    with pytest.raises(ValueError, match=r"tiles of 13x14 pixels are smaller than .*; give at least 14x14"):
        Tiled(model, (13, 14), channels=1)
    Tiled(model, (14, 14), channels=1)


@torch.no_grad()
def test_sizes_that_a_network_resizes_unevenly_are_an_error():
    tiled = Tiled(network("deeplab"), (280, 300), channels=3)
    with pytest.raises(DataError, match=r"400x337 pixels cannot be taken apart: .* one more than a multiple of 16"):
        tiled(image(400, 337))
