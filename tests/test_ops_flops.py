"""The cost of a call: the formula of docs/math.md, against counts by hand, in torch's counter and in networks."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from daukit import DAUConv2d, create_model, dau_conv2d
from daukit.models.costs import multiply_adds
from daukit.models.tables import empty_model

# By hand: two images, 4 channels of 6 x 10 pixels; sigma 0.5 has a blur of 7 taps, a learned one 17.
PIXELS, BLUR, LEARNED = 2 * 4 * 60, 2 * 4 * 60 * (7 + 7), 2 * 4 * 60 * (17 + 17)
FORWARD = {
    "dense": ({}, BLUR + 4 * (6 * 4 * 3) * 2 * 60),
    "strided": ({"stride": (2, 3)}, BLUR + 4 * (6 * 4 * 3) * 2 * (3 * 4)),
    "grouped": ({"groups": 2}, BLUR + 4 * (6 * 2 * 3) * 2 * 60),
    "dilated": ({"dilation": 2}, BLUR + 4 * (6 * 4 * 3) * 2 * 60),
    "learned": ({"learn_sigma": True}, LEARNED + 4 * (6 * 4 * 3) * 2 * 60),
}


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", FORWARD)
def test_torchs_counter_counts_the_forward_as_by_hand(name):
    options, expected = FORWARD[name]
    layer, x = DAUConv2d(4, 6, 3, **options), torch.zeros(2, 4, 6, 10)
    assert counted(lambda: layer(x)) == 2 * expected
    assert sum(multiply_adds(layer, x.shape).values()) == expected


@pytest.mark.parametrize(("sigma", "blur"), [(0.5, BLUR), (0.0, 0)])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_unit_at_whole_pixels_has_one_tap_and_no_blur_costs_nothing(sigma, blur, ragged):
    layer, x, units = DAUConv2d(4, 6, 3, whole_pixels=True, sigma=sigma), torch.zeros(2, 4, 6, 10), 72
    if ragged:
        layer.keep_units((torch.arange(72) % 7 == 0).reshape(6, 4, 3))
        units = 11
    assert multiply_adds(layer, x.shape) == {"": blur + units * 2 * 60}
    assert counted(lambda: layer(x)) == 2 * (blur + units * 2 * 60)


def test_displacements_between_pixels_have_four_taps_without_a_blur_too():
    tensors = torch.zeros(2, 4, 6, 10), torch.ones(6, 4, 3), torch.full((2, 6, 4, 3), 0.5)
    assert counted(lambda: dau_conv2d(*tensors, sigma=0.0)) == 2 * 4 * 72 * 2 * 60
    assert counted(lambda: dau_conv2d(*tensors, sigma=0.0, whole_pixels=True)) == 2 * 72 * 2 * 60


def test_whole_pixels_of_a_call_are_true_or_false():
    with pytest.raises(TypeError, match="whole_pixels must be True or False, got int 1"):
        dau_conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1), torch.zeros(2, 1, 1, 1), whole_pixels=1)


def test_ragged_units_are_counted_one_by_one():
    layer, x = DAUConv2d(4, 6, 3), torch.zeros(2, 4, 6, 10)
    layer.keep_units((torch.arange(72) % 7 == 0).reshape(6, 4, 3))  # 11 of 72
    expected = BLUR + 4 * 11 * 2 * 60
    assert counted(lambda: layer(x)) == 2 * expected
    assert multiply_adds(layer, x.shape) == {"": expected}
    assert multiply_adds(layer, x.shape, {"": 5}) == {"": BLUR + 4 * 5 * 2 * 60}


@pytest.mark.parametrize(
    ("wanted", "options", "expected"),
    [
        (["weight"], {}, lambda blur, read: blur + read),
        (["mu"], {}, lambda blur, read: 2 * blur + 2 * read),
        (["mu"], {"mu_gradient": "exact"}, lambda blur, read: blur + read),
        (["weight", "mu"], {"mu_gradient": "exact"}, lambda blur, read: blur + read),
        (["weight", "mu"], {}, lambda blur, read: 3 * blur + 3 * read),
        (["input"], {}, lambda blur, read: blur + read),
        (["sigma"], {"learn_sigma": True}, lambda blur, read: 2 * blur + read + PIXELS),
        (["input", "sigma"], {"learn_sigma": True}, lambda blur, read: 3 * blur + read + PIXELS),
        (["bias"], {}, lambda blur, read: 0),
        # One tap, and the two neighbours in the exact derivative at a whole pixel.
        (["weight"], {"whole_pixels": True}, lambda blur, read: blur + read // 4),
        (["mu"], {"whole_pixels": True}, lambda blur, read: 2 * blur + 2 * read // 4),
        (["input", "weight", "mu"], {"whole_pixels": True}, lambda blur, read: 4 * blur + 4 * read // 4),
        (["weight"], {"whole_pixels": True, "mu_gradient": "exact"}, lambda blur, read: blur + read // 4),
        (["weight", "mu"], {"whole_pixels": True, "mu_gradient": "exact"}, lambda blur, read: blur + 3 * read // 4),
        (["input", "weight"], {"whole_pixels": True, "sigma": 0.0}, lambda blur, read: 2 * read // 4),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_torchs_counter_counts_each_gradient_as_by_hand(wanted, options, expected, stride):
    layer, x = DAUConv2d(4, 6, 3, stride=stride, **options).requires_grad_(False), torch.zeros(2, 4, 6, 10)
    for name in wanted:
        (x if name == "input" else getattr(layer, name)).requires_grad_()
    output = layer(x)
    read = 4 * 72 * 2 * output.shape[2] * output.shape[3]
    blur = LEARNED if "learn_sigma" in options else BLUR
    assert counted(lambda: output.sum().backward()) == 2 * expected(blur, read)


def test_the_general_form_is_counted_as_the_convolution_that_it_is():
    layer = DAUConv2d(4, 6, 3, form="gaussian", window=5, stride=2)
    assert multiply_adds(layer, (2, 4, 6, 10)) == {"": 2 * 6 * 4 * 25 * 3 * 5}


def test_a_network_of_ordinary_layers_is_counted_as_torch_counts_it():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2),
        nn.ConvTranspose2d(4, 2, 3, stride=2), nn.Flatten(), nn.Linear(2 * 13 * 13, 5),
    )  # fmt: skip
    x = torch.zeros(2, 3, 16, 16)
    own = multiply_adds(network, x.shape)
    assert set(own) == {"0", "2", "3", "5"} and 2 * sum(own.values()) == counted(lambda: network(x))


def test_a_network_of_daukits_is_counted_without_its_numbers():
    x = torch.zeros(1, 1, 28, 28)
    with_numbers = counted(lambda: create_model("shallow_dau").eval()(x))
    assert 2 * sum(multiply_adds(empty_model("shallow_dau"), x.shape).values()) == with_numbers


def test_an_input_that_the_network_does_not_take_is_said():
    with pytest.raises(ValueError, match=r"does not take an input of \(1, 2, 8, 8\): .*takes 3 channels, got 2"):
        multiply_adds(DAUConv2d(3, 4, 2), (1, 2, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["daukit", "torch.utils.flop_counter"])
def test_the_order_of_imports_does_not_matter_and_importing_stays_light(first):
    code = f"""if True:
        import sys, importlib
        importlib.import_module({first!r})
        import torch, daukit
        layer = daukit.DAUConv2d(1, 1, 1, sigma=0.1)
        assert {first!r} != "daukit" or "torch.utils.flop_counter" not in sys.modules
        from torch.utils.flop_counter import FlopCounterMode
        with FlopCounterMode(display=False) as counter:
            layer(torch.zeros(1, 1, 2, 2))
        assert counter.get_total_flops() == 2 * (4 * 6 + 4 * 4), counter.get_total_flops()
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
