"""Each fact about modules and calls holds of torch, and means the same to all who ask, written as module or as call."""

import operator

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import daukit
from daukit.channels.flow import follow
from daukit.models import effects
from daukit.models.graph import trace
from daukit.models.inputs import input_channels
from daukit.rescale.plan import plan
from daukit.rescale.reductions import reductions

ARGUMENTS = {
    nn.BatchNorm2d: (4,), nn.LocalResponseNorm: (3,), nn.PReLU: (4,), nn.GroupNorm: (2, 4), nn.InstanceNorm2d: (4,),
    nn.AdaptiveAvgPool2d: (1,), nn.AdaptiveMaxPool2d: (1,), nn.MaxPool2d: (2, 1), nn.AvgPool2d: (2, 1),
    nn.ZeroPad2d: (1,), nn.ConstantPad2d: (1, 0.5), nn.ReflectionPad2d: (1,), nn.ReplicationPad2d: (1,),
    nn.Upsample: ((6, 6),),
}  # fmt: skip
# Functions beside the module that computes the same: what they are called with behind the map.
CALLS = {
    "relu": (F.relu, nn.ReLU()),
    "torch.relu": (torch.relu, nn.ReLU()),
    "relu6": (F.relu6, nn.ReLU6()),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU()),
    "elu": (F.elu, nn.ELU()),
    "gelu": (F.gelu, nn.GELU()),
    "silu": (F.silu, nn.SiLU()),
    "sigmoid": (torch.sigmoid, nn.Sigmoid()),
    "tanh": (torch.tanh, nn.Tanh()),
    "hardswish": (F.hardswish, nn.Hardswish()),
    "dropout": (lambda x: F.dropout(x, 0.5, training=False), nn.Dropout()),
    "dropout2d": (lambda x: F.dropout2d(x, 0.5, False), nn.Dropout2d()),
    "contiguous": (lambda x: x.contiguous(), nn.Identity()),
    "clone": (torch.clone, nn.Identity()),
    "to": (lambda x: x.to(torch.float64), nn.Identity()),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), nn.LocalResponseNorm(3)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 1), nn.MaxPool2d(2, 1)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, 1), nn.AvgPool2d(2, 1)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), nn.AdaptiveAvgPool2d(1)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 1), nn.AdaptiveMaxPool2d(1)),
    "flatten": (lambda x: torch.flatten(x, 1), nn.Flatten()),
    "flatten method": (lambda x: x.flatten(start_dim=1), nn.Flatten()),
    "interpolate": (lambda x: F.interpolate(x, size=(6, 6)), nn.Upsample((6, 6))),
}
ARITHMETIC = {
    "add": lambda x: x + 1.5,
    "sub": lambda x: torch.sub(x, 0.5),
    "mul": lambda x: x.mul(-2),
    "div": lambda x: torch.div(x, 4),
    "truediv": lambda x: operator.itruediv(x, 4),
    "neg": lambda x: -x,
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "in place": lambda x: x.mul_(3).add_(1),
}


class Between(nn.Module):
    """A pool and a layer, something, and another layer, which reads vectors where ``is_flat``."""

    def __init__(self, between, is_flat=False):
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.first, self.between = nn.MaxPool2d(2), nn.Conv2d(3, 4, 1), between
        self.last = nn.Linear(4, 2) if is_flat else nn.Conv2d(4, 2, 1)
        nn.init.zeros_(self.first.weight[:2].data)
        self.first.bias.data[:2] = torch.tensor([0.0, 0.75])
        self.double().eval()

    def forward(self, x):
        return self.last(self.between(self.first(self.pool(x))))


class First(nn.Module):
    """Something in front of the first layer."""

    def __init__(self, between):
        super().__init__()
        self.between, self.late, self.first = between, nn.Conv2d(7, 2, 1), nn.Conv2d(4, 7, 1)

    def forward(self, x):
        return self.late(self.first(self.between(x)))


def module(kind):
    torch.manual_seed(0)
    made = kind(*ARGUMENTS.get(kind, ())).double().eval()
    for buffer in made.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    return made


def graph_of(network):
    return trace(network, "this", "")


def plan_of(network):
    """The factors behind a removed pool, or why there are none."""
    try:
        return plan(network, graph_of(network), ["pool"]).factors
    except ValueError as error:
        return "refused" if "behind a removed stride" in str(error) else str(error)


def constants_of(network):
    """Values of constant channels at the last layer, as text, since NaN is no number; None where it is not reached."""
    carried = follow(network, graph_of(network))["first"].readers.get("last")
    return None if carried is None else [f"{value:.6f}" for value in carried.tolist()]


@torch.no_grad()
def seen_by(change, made):
    """Where, as (channel, row, column), the outputs for two images differ that differ at ``change``."""
    image = torch.randn(1, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = image.clone()
    other[0][change] += 1
    return {tuple(place) for place in (made(other) != made(image))[0].nonzero().tolist()}


@pytest.mark.parametrize("kind", effects.PER_CHANNEL)
def test_one_position_of_one_channel_is_all_that_they_look_at(kind):
    assert seen_by((2, 1, 3), module(kind)) <= {(2, 1, 3)}


@pytest.mark.parametrize("kind", effects.PER_POSITION)
def test_one_position_is_all_that_they_look_at(kind):
    assert {place[1:] for place in seen_by((2, 1, 3), module(kind))} <= {(1, 3)}


@pytest.mark.parametrize("kind", effects.KEEPING_CONSTANTS)
def test_constants_stay_what_they_are(kind):
    image = torch.tensor([-0.5, 0, 2, 3])[None, :, None, None].expand(1, 4, 5, 5).double()
    assert torch.equal(module(kind)(image).amax((2, 3)), image[..., 0, 0])
    assert torch.equal(module(kind)(image).amin((2, 3)), image[..., 0, 0])


@pytest.mark.parametrize("kind", effects.KEEPING_CHANNELS)
def test_channels_stay_in_number(kind):
    image = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert module(kind)(image).shape[1] == 4
    assert input_channels(First(module(kind))) == 4


@pytest.mark.parametrize("kind", effects.KEEPING_RESOLUTION)
def test_pixels_stay_in_number_for_who_compares_networks(kind):
    image = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert module(kind)(image).numel() == image.numel()
    network = Between(module(kind), is_flat=kind is nn.Flatten)
    assert reductions(network, graph_of(network))["last"] == (2, 2)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_to_everybody_what_the_module_is(name):
    call, made = CALLS[name]
    is_flat = "flatten" in name
    image = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert torch.equal(call(image), made.double().eval()(image))
    functional, modular = Between(call, is_flat), Between(made, is_flat)
    assert constants_of(functional) == constants_of(modular)
    assert is_flat or input_channels(First(call)) == input_channels(First(made)) == 4
    found = [reductions(network, graph_of(network))["last"] for network in (functional, modular)]
    assert found[0] == found[1] or isinstance(made, nn.MaxPool2d | nn.AvgPool2d)
    # No file can replace a call, so these are refused, in one sentence.
    if isinstance(made, nn.MaxPool2d | nn.AvgPool2d | nn.Flatten):
        assert plan_of(functional) == "refused"
    else:
        assert plan_of(functional) == {key: f for key, f in plan_of(modular).items() if key != "between"}


@pytest.mark.parametrize("kind", effects.PER_POSITION)
def test_who_rescales_and_who_drops_channels_agree_on_modules(kind):
    network = Between(module(kind))
    assert plan_of(network) == {"pool": 1, "first": 2, "last": 2}
    carried = constants_of(network)
    if kind not in effects.PER_CHANNEL:
        assert carried is None
        return
    values = module(kind)(torch.tensor([0.0, 0.75, 0, 0], dtype=torch.float64).reshape(1, 4, 1, 1))[0, :2, 0, 0]
    assert carried == [*(f"{value:.6f}" for value in values.tolist()), "nan", "nan"]


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_is_pointwise_to_everybody(name):
    network, image = Between(ARITHMETIC[name]), torch.tensor([0.0, 0.75], dtype=torch.float64)
    assert constants_of(network) == [*(f"{v:.6f}" for v in ARITHMETIC[name](image.clone()).tolist()), "nan", "nan"]
    assert plan_of(network) == {"pool": 1, "first": 2, "last": 2}
    assert reductions(network, graph_of(network))["last"] == (2, 2)
    assert input_channels(First(ARITHMETIC[name])) == 4


@pytest.mark.parametrize("between", [lambda x: F.dropout(x, 0.5), lambda x: F.softmax(x, 1), lambda x: x.cumsum(2)])
def test_what_looks_further_is_pointwise_to_nobody(between):
    network = Between(between)
    assert constants_of(network) is None and plan_of(network) == "refused"


def relu(x):
    return x - x.mean((2, 3), keepdim=True)


fx.wrap("relu")


def test_a_namesake_of_a_function_is_none_of_torchs():
    network = Between(lambda x: relu(x))  # looked up while it is traced, as a node of its own
    assert constants_of(network) is None and plan_of(network) == "refused"


def test_channels_behind_functions_are_dropped_as_those_behind_modules_are():
    dropped = []
    for between in (nn.LeakyReLU(), F.leaky_relu):
        _, (report,) = daukit.drop_channels(Between(between))
        dropped.append((report.dropped, report.folded))
    assert dropped == [([0, 1], [1])] * 2
