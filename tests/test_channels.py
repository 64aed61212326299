"""Channels that no longer matter are dropped, and the network says what it said before."""

import pytest
import torch
import torch.nn.utils.prune
from torch import fx, nn
from torch.nn import functional as F

import daukit
from daukit.channels import drop_channels
from daukit.channels.flow import follow
from daukit.checkpoint import build_model, from_model
from daukit.errors import CheckpointError
from daukit.models.structure import dau_layers
from daukit.pruning import prune


def shallow(**config):
    """Three layers behind each other, with batch norms that have been somewhere."""
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[5, 6, 7], units=2, **config).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
            module.running_var.uniform_(0.5, 2)
    for layer in dau_layers(model).values():
        layer.mu.data.normal_(0, 2)
    return model


def silence(model, name, channel, activation):
    """Make a channel constant: its layer gives nothing, and its batch norm makes ``activation`` of that."""
    model.get_submodule(name).weight.data[channel] = 0
    norm = model.get_submodule(name.replace("conv", "bn"))
    shift = -norm.running_mean[channel] / (norm.running_var[channel] + norm.eps).sqrt() * norm.weight[channel]
    norm.bias.data[channel] = activation - shift


def assert_same(before, after, tmp_path, shape=(3, 1, 28, 28)):
    """Equal outputs, also through a file."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    daukit.write(after, tmp_path / "narrow.safetensors")
    with torch.no_grad():
        expected = build_model(before)(x)
        for narrow in (build_model(after), daukit.load(tmp_path / "narrow.safetensors")):
            # The same terms but for zeros, added in another order.
            assert (narrow(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("learn_sigma", ["none", "layer", "unit"])
@pytest.mark.parametrize("ragged", [False, True])
def test_channels_that_are_always_zero_go_through_the_batch_norm_and_the_next_layer(tmp_path, ragged, learn_sigma):
    model = shallow(learn_sigma=learn_sigma)
    for channel in (1, 4):
        silence(model, "conv1", channel, -0.5)
    silence(model, "conv2", 0, -1.0)
    before = from_model(model)
    if ragged:
        before, _ = prune(before, 0.05)
    after, (first, second) = drop_channels(before)
    assert (first.name, first.dropped, first.folded, first.constant) == ("conv1", [1, 4], [], {})
    assert (second.name, second.dropped, second.folded, second.constant) == ("conv2", [0], [], {})
    described = {d["name"]: (d["in_channels"], d["out_channels"]) for d in after.header.layers}
    assert described == {"conv1": (1, 3), "conv2": (3, 5), "conv3": (5, 7)}
    assert after.header.modules["bn1"] == {"type": "BatchNorm2d", "num_features": 3}
    assert after.header.history[-1]["arguments"] == {"dropped": {"conv1": 2, "conv2": 1}}
    assert_same(before, after, tmp_path)


def test_channels_that_nobody_reads_go_whatever_they_carry_and_so_do_those_that_only_they_read(tmp_path):
    model = shallow()
    model.conv3.weight.data[:, 2] = 0  # nobody reads channel 2 of conv2,
    model.conv2.weight.data[[0, 1, 3, 4, 5], 3] = 0  # the only one that reads channel 3 of conv1
    before = from_model(model)
    after, reports = drop_channels(before)
    assert {r.name: r.dropped for r in reports} == {"conv1": [3], "conv2": [2]}
    assert_same(before, after, tmp_path)


def test_a_constant_in_front_of_a_layer_with_a_border_stays_and_is_told_with_its_value(tmp_path):
    model = shallow()
    silence(model, "conv1", 2, 0.75)
    before = from_model(model)
    after, (report,) = drop_channels(before)
    assert after is before
    assert (report.name, report.dropped, report.constant) == ("conv1", [], {2: 0.0})
    assert report.reason == "conv2 reads zeros outside the image, so no bias can stand for a constant"


def test_a_constant_in_front_of_a_linear_layer_goes_into_its_bias(tmp_path):
    model = shallow()
    silence(model, "conv3", 3, 0.75)
    silence(model, "conv3", 5, -0.75)
    before = from_model(model)
    after, (report,) = drop_channels(before)
    assert (report.dropped, report.folded) == ([3, 5], [3])
    width = after.tensors["classifier.weight"].shape[1]
    assert width == 5 * 9 and not torch.equal(after.tensors["classifier.bias"], before.tensors["classifier.bias"])
    assert_same(before, after, tmp_path)


class Branched(nn.Module):
    """Calls and joins: what a trace must tell apart."""

    def __init__(self, joined):
        super().__init__()
        self.joined = joined
        self.first = daukit.DAUConv2d(2, 4, 2)
        self.point = nn.Conv2d(4, 5, 1, bias=False)
        self.wide = nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        both = torch.cat([x, x], 1)[:, :4] if self.joined else x
        y = self.point(x) + self.wide(both)
        return self.last(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1))


def branched(joined):
    torch.manual_seed(0)
    return Branched(joined).double().eval()


ARCHITECTURE = {"factory": f"{__file__}:branched"}


def test_a_channel_goes_where_every_reader_can_do_without_it(tmp_path):
    model = branched(False)
    model.first.weight.data[:3] = 0
    model.first.bias.data[:] = torch.tensor([0.5, 0.5, -0.5, 0.5])
    model.wide.weight.data[:, 0] = 0  # only the 1x1 convolution, which can fold it, reads channel 0
    before = from_model(model, architecture={**ARCHITECTURE, "config": {"joined": False}})
    after, (report,) = drop_channels(before, model=ARCHITECTURE["factory"])
    assert (report.dropped, report.folded, report.constant) == ([0, 2], [0], {1: 0.5})
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    narrow = build_model(after, model=ARCHITECTURE["factory"])
    assert narrow.point.bias is not None and narrow.first.out_channels == narrow.wide.in_channels == 2
    with torch.no_grad():
        assert (narrow(x) - model(x)).abs().max() <= 1e-12 * model(x).abs().max()


class Repeated(nn.Module):
    """One layer in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.last(self.again(self.again(self.first(x))))


def repeated():
    torch.manual_seed(0)
    return Repeated().double().eval()


def test_a_layer_in_two_places_keeps_its_channels():
    model, factory = repeated(), f"{__file__}:repeated"
    for layer in (model.first, model.again):
        with torch.no_grad():
            layer.weight[1], layer.bias[1] = 0, 0
    before = from_model(model, architecture={"factory": factory, "config": {}})
    after, reports = drop_channels(before, model=factory)
    assert after is before and {r.name: r.constant for r in reports} == {"first": {1: 0.0}, "again": {1: 0.0}}
    assert {r.reason for r in reports} == {"again is called more than once"}


def test_what_works_in_place_does_not_change_what_a_layer_is_said_to_carry():
    model = chain("in place", True)
    flow = follow(model, fx.symbolic_trace(model).graph)["0"]
    carried = torch.tensor([torch.nan, 0, 0.75, torch.nan, -0.5, torch.nan], dtype=torch.float64)
    assert torch.equal(flow.produced.nan_to_num(9), carried.nan_to_num(9))
    assert torch.equal(flow.readers["3"].nan_to_num(9), carried.clamp(min=0).nan_to_num(9))


def test_joined_channels_stay_and_the_join_is_named():
    model = branched(True)
    model.first.weight.data[:2] = 0
    before = from_model(model, architecture={**ARCHITECTURE, "config": {"joined": True}})
    after, (report,) = drop_channels(before, model=ARCHITECTURE["factory"])
    assert after is before and sorted(report.constant) == [0, 1]
    assert report.reason == "its channels go into cat()"


def test_the_alexnets_norms_mix_channels_and_its_last_layers_do_not(tmp_path):
    torch.manual_seed(0)
    config = {"channels": [4, 5, 6, 5, 4], "hidden": 7, "num_classes": 3, "input_size": [67, 67], "units": [2, 1, 1, 1]}
    model = daukit.create_model("alexnet_dau", **config).double().eval()
    for name in ("conv2", "conv3", "conv5", "fc6"):
        layer = model.get_submodule(name)
        layer.weight.data[1] = 0
        layer.bias.data[1] = -0.5
    before = from_model(model)
    after, reports = drop_channels(before)
    told = {r.name: (r.dropped, sorted(r.constant), r.reason) for r in reports}
    assert told == {
        "conv2": ([], [1], "its channels go into norm2 (LocalResponseNorm)"),
        "conv3": ([1], [], None),
        "conv5": ([1], [], None),
        "fc6": ([1], [], None),
    }
    assert_same(before, after, tmp_path, (2, 3, 67, 67))


def test_the_residual_networks_inner_channels_go(tmp_path):
    torch.manual_seed(0)
    model = daukit.create_model("resnet50_dau", width=3, depths=[1, 1, 1, 1], num_classes=4).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            nn.init.uniform_(module.bias, -1, 1)
    model.stage2[0].conv2.weight.data[1] = 0
    model.stage2[0].bn3.bias.data[1] = -9
    model.stage1[0].conv3.weight.data[0] = 0
    before = from_model(model)
    after, reports = drop_channels(before)
    told = {r.name: (r.dropped, r.reason) for r in reports}
    assert told == {
        "stage1.0.conv3": ([], "its channels go into add()"),
        "stage2.0.conv2": ([1], None),
    }
    assert_same(before, after, tmp_path, (2, 3, 64, 64))


def test_a_layer_keeps_one_channel(tmp_path):
    model = shallow()
    for channel in range(5):
        silence(model, "conv1", channel, -1.0)
    before = from_model(model)
    after, reports = drop_channels(before)
    first = reports[0]
    assert first.dropped == [1, 2, 3, 4] and first.constant == {0: 0.0}
    assert first.reason == "a layer keeps at least one channel"
    assert_same(before, after, tmp_path)


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


def test_nothing_to_drop_changes_nothing():
    before = from_model(shallow())
    assert drop_channels(before) == (before, ())


def test_a_network_that_cannot_be_built_or_traced_is_an_error():
    with pytest.raises(CheckpointError, match="may not choose what code runs"):
        drop_channels(from_model(branched(True), architecture={**ARCHITECTURE, "config": {"joined": True}}))
    fickle = f"{__file__}:fickle"
    with pytest.raises(ValueError, match="cannot trace the network"):
        drop_channels(from_model(fickle_network(), architecture={"factory": fickle, "config": {}}), model=fickle)


class Fickle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = daukit.DAUConv2d(1, 2, 1)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def fickle_network():
    return Fickle()


fickle = fickle_network


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


class Peeking(nn.Module):
    """Reads a layer's weight beside calling it, which no graph of modules shows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(self.first(x)) + self.first.weight.mean()


def peeking():
    torch.manual_seed(0)
    model = Peeking()
    model.first.weight.data[1] = model.first.bias.data[1] = 0
    return model


def test_a_network_that_would_say_something_else_is_refused():
    before = from_model(peeking(), architecture={"factory": f"{__file__}:peeking", "config": {}})
    with pytest.raises(ValueError, match="outputs differ by"):
        drop_channels(before, model=f"{__file__}:peeking")
