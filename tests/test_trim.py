"""Layers without outputs at the far end of the image, beside convolutions without padding."""

import copy

import pytest
import torch
from rescaled import assert_same_at_coarse_positions, checkpoint_of, removed
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.baking import bake
from daukit.erf import theoretical_receptive_field
from daukit.models.descriptions import layer_faults
from daukit.models.structure import build, describe
from daukit.nn import DAUConv2d
from daukit.rescale import rescale_factors


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def corner(channels=2, outputs=3, stride=1, dilation=1, trim=2):
    """A layer whose units stand where the taps of a 3x3 convolution without padding do, and the convolution."""
    conv = nn.Conv2d(channels, outputs, 3, stride=stride, dilation=dilation)
    layer = DAUConv2d(
        channels, outputs, (3, 3), max_displacement=2, sigma=0.0, whole_pixels=True, stride=stride, dilation=dilation,
        trim=trim,
    )  # fmt: skip
    with torch.no_grad():
        layer.mu.copy_(torch.stack(torch.meshgrid(*2 * [torch.arange(3.0)], indexing="ij")).reshape(2, 1, 1, 9))
        layer.weight.copy_(conv.weight.flatten(2))
        layer.bias.copy_(conv.bias)
    return layer, conv


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), ((3, 2), (1, 2))])
def test_a_trimmed_layer_has_the_outputs_of_a_convolution_without_padding(stride, dilation):
    trim = (2, 2) if dilation == 1 else tuple(2 * d for d in ((dilation,) * 2 if dilation == 2 else dilation))
    layer, conv = corner(stride=stride, dilation=dilation, trim=trim)
    for size in ((9, 8), (7, 10), (trim[0] + 1, trim[1] + 1)):
        x = noise(2, 2, *size)
        torch.testing.assert_close(layer(x), conv(x))
        assert layer(x).is_contiguous()


def test_an_image_that_is_no_larger_than_the_trim_is_refused():
    layer, _ = corner(trim=(2, 4))
    with pytest.raises(ValueError, match=r"5 x 4 pixels, and trim=\(2, 4\)"):
        layer(noise(1, 2, 5, 4))


@pytest.mark.parametrize(("trim", "error"), [(-1, ValueError), ((1, 2, 3), ValueError), (1.5, TypeError)])
def test_a_trim_that_is_no_size_is_refused(trim, error):
    with pytest.raises(error, match="trim must be an integer of at least 0 or two of them"):
        DAUConv2d(1, 1, 1, trim=trim)


def test_the_general_form_has_no_trim():
    with pytest.raises(ValueError, match="trim goes with"):
        DAUConv2d(1, 1, 1, form="gaussian", trim=1)


def test_gradients_are_those_of_the_convolution():
    layer, conv = corner(stride=2)
    x, y = noise(1, 2, 8, 9).requires_grad_(), noise(1, 2, 8, 9).requires_grad_()
    layer(x).square().sum().backward()
    conv(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(layer.weight.grad.reshape(conv.weight.shape), conv.weight.grad)


def test_the_description_and_the_repr_tell_it_only_where_there_is_one():
    layer, _ = corner(trim=(1, 2))
    assert "trim=(1, 2)" in repr(layer) and describe(build(describe(layer)))["trim"] == [1, 2]
    plain = DAUConv2d(1, 1, 1)
    assert "trim" not in repr(plain) and "trim" not in describe(plain)
    assert layer_faults({"name": "a", **describe(layer), "trim": [1, -1]}) == ["trim"]
    general = describe(DAUConv2d(1, 1, 1, form="gaussian"))
    assert layer_faults({"name": "a", **general, "trim": [0, 1]}) == ["trim (the general form has none)"]


def test_a_file_keeps_it(tmp_path):
    model = daukit.create_model("shallow", channels=[2, 2, 3])
    layer, conv = corner(2, 2)
    reference = copy.deepcopy(model)
    model.conv2, reference.conv2 = layer, conv
    assert daukit.save(model.eval(), tmp_path / "model.safetensors")
    x = noise(1, 1, 28, 28)
    torch.testing.assert_close(daukit.load(tmp_path / "model.safetensors")(x), model(x))
    torch.testing.assert_close(model(x), reference.eval()(x))


def test_baking_leaves_the_same_outputs_out():
    for options in ({}, {"stride": 2}, {"dilation": (1, 2), "trim": (2, 4)}):
        layer, _ = corner(**options)
        x = noise(2, 2, 9, 11)
        torch.testing.assert_close(bake(nn.Sequential(layer))(x), layer(x))


def test_the_receptive_field_is_that_of_the_convolution():
    layer, conv = corner(1, 1, stride=2)
    layer.max_displacement = None  # by its units
    fields = []
    for first in (layer, conv):
        network = nn.Sequential(first, nn.MaxPool2d(2), nn.Conv2d(1, 1, 3))
        (field,) = theoretical_receptive_field(network, "2", noise(1, 1, 33, 30))
        fields.append((field.size, field.stride))
    assert fields[0] == fields[1]


def trimmed_behind_a_pool():
    layer, _ = corner(2, 2)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), layer)


def test_a_removed_pool_widens_it_with_the_map():
    before = checkpoint_of(trimmed_behind_a_pool)
    after, _ = removed(before, ("1",), "exact", input_size=(20, 22))
    assert after.header.layers[0]["trim"] == [4, 4]
    for size in ((20, 22), (19, 23)):
        assert_same_at_coarse_positions(before, after, noise(1, 1, *size).double(), 2)


def test_a_factor_that_leaves_no_whole_rows_is_refused():
    layer, _ = corner(trim=(1, 2))
    model = daukit.create_model("shallow", channels=[2, 3, 3])
    model.conv2 = layer
    with pytest.raises(ValueError, match=r"conv2: trim \[1, 2\] times 1.5"):
        rescale_factors(model, {"conv2": 1.5})
    after, _ = rescale_factors(model, {"conv2": 2.0})
    assert after.conv2.trim == (2, 4)


def test_it_is_traced_compiled_and_scripted_shapes_follow():
    layer, conv = corner(stride=2)
    traced = torch.fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    x = noise(1, 2, 9, 9)
    torch.testing.assert_close(traced(x), F.relu(conv(x)))
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == conv(x).shape
