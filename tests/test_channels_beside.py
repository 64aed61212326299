"""Channels are followed through what stands between two layers, and stay where a layer does more than its type says."""

import pytest
import torch
import torch.nn.utils.prune
from torch import fx, nn
from torch.nn import functional as F

from daukit.channels import drop_channels
from daukit.channels.flow import follow
from daukit.checkpoint import build_model, from_model

BETWEEN = {
    "max pool": (lambda: nn.MaxPool2d(3, 2, padding=1), True),
    "average pool": (lambda: nn.AvgPool2d(2), False),
    "average pool with a border": (lambda: nn.AvgPool2d(3, 1, padding=1), False),
    "divided average pool": (lambda: nn.AvgPool2d(2, divisor_override=3), False),
    "global pool": (lambda: nn.AdaptiveAvgPool2d(4), True),
    "zero padding": (lambda: nn.ZeroPad2d(1), False),
    "sigmoid": (nn.Sigmoid, True),
    "leaky": (lambda: nn.LeakyReLU(0.3), True),
    "in place": (lambda: nn.ReLU(inplace=True), True),
    "dropout": (nn.Dropout, True),
    "constant padding": (lambda: nn.ConstantPad2d(1, 0.5), None),
    "reflection": (lambda: nn.ReflectionPad2d(1), None),
    "learned slope": (nn.PReLU, None),
    "batch statistics": (lambda: nn.BatchNorm2d(6, track_running_stats=False), None),
    "response norm": (lambda: nn.LocalResponseNorm(3), None),
    "shuffle": (lambda: nn.ChannelShuffle(2), None),
}
"""What may stand between two layers, and whether a constant comes through; None: no channel can be followed."""

VALUES = (0.0, 0.75, -0.5)
"""What channels 1, 2 and 4 carry behind the first layer."""


def chain(between, linear):
    torch.manual_seed(0)
    first = nn.Conv2d(2, 6, 3)
    with torch.no_grad():
        for channel, value in zip((1, 2, 4), VALUES, strict=True):
            first.weight[channel], first.bias[channel] = 0, value
    front = nn.Sequential(first, BETWEEN[between][0]())
    size = front(torch.zeros(2, 2, 10, 10)).shape[-1]
    behind = [nn.Flatten(), nn.Linear(6 * size**2, 3)] if linear else [nn.Conv2d(6, 3, 2, bias=False)]
    return nn.Sequential(*front, *behind).double().eval()


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_whatever_stands_between_two_layers_the_output_is_the_same(between, linear):
    factory, known = f"{__file__}:chain", BETWEEN[between][1]
    model = chain(between, linear)
    before = from_model(model, architecture={"factory": factory, "config": {"between": between, "linear": linear}})
    after, (report,) = drop_channels(before, model=factory)
    assert report.name == "0" and sorted([*report.dropped, *report.constant]) == [1, 2, 4]
    assert report.dropped == ([] if known is None else [1, 2, 4] if known else [1])
    x = torch.randn(3, 2, 10, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        assert (build_model(after, model=factory)(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_what_works_in_place_does_not_change_what_a_layer_is_said_to_carry():
    model = chain("in place", True)
    flow = follow(model, fx.symbolic_trace(model).graph)["0"]
    carried = torch.tensor([torch.nan, 0, 0.75, torch.nan, -0.5, torch.nan], dtype=torch.float64)
    assert torch.equal(flow.produced.nan_to_num(9), carried.nan_to_num(9))
    assert torch.equal(flow.readers["3"].nan_to_num(9), carried.clamp(min=0).nan_to_num(9))


def _own_forward(layer):
    layer.forward = lambda x: 2 * F.conv2d(x, layer.weight, layer.bias)


BESIDE = {
    "output hook": lambda layer: layer.register_forward_hook(lambda module, inputs, output: 2 * output + 1),
    "input hook": lambda layer: layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,)),
    "backward hook": lambda layer: layer.register_full_backward_hook(lambda *_: None),
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "mask": lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3),
    "own forward": _own_forward,
    "own parameter": lambda layer: layer.register_parameter("extra", nn.Parameter(torch.ones(1))),
}
"""What a layer may do that its type does not say."""


def beside(what, place):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)
    )
    with torch.no_grad():
        for channel in (1, 2, 4):
            # Normalising a filter of zeros would be 0 / 0.
            model[0].weight[channel] = 0.01 if what == "weight norm" else 0
            model[0].bias[channel] = 0.5 * channel
        model[3].weight[2], model[3].bias[2] = 0.01 if what == "weight norm" else 0, -1
    layer = model[place]
    if what in ("weight norm", "spectral norm", "mask") and not isinstance(layer, nn.Conv2d):
        return model.eval()
    if what == "own forward" and not isinstance(layer, nn.Conv2d):
        layer.forward = lambda x: x + 1
    else:
        BESIDE[what](layer)
    return model.double().eval()


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("what", BESIDE)
def test_what_does_more_than_its_type_says_stays_and_the_output_is_the_same(what, place):
    factory = f"{__file__}:beside"
    model = beside(what, place)
    x = torch.randn(3, 2, 10, 10, dtype=torch.float64)
    with torch.no_grad():
        model.double()(x)  # what hooks compute is there
        before = from_model(model, architecture={"factory": factory, "config": {"what": what, "place": place}})
        expected = build_model(before, model=factory).double()(x)
        after, _ = drop_channels(before, model=factory)
        narrow = build_model(after, model=factory).double()(x)
    assert (narrow - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_the_reason_names_the_layer_that_has_hooks():
    factory = f"{__file__}:beside"
    before = from_model(
        beside("output hook", 3), architecture={"factory": factory, "config": {"what": "output hook", "place": 3}}
    )
    _, reports = drop_channels(before, model=factory)
    assert "3 (Conv2d: it has hooks" in next(report.reason for report in reports if report.name == "0")
