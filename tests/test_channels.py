"""Channels that no longer matter are dropped, and the network says what it said before."""

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.channels import drop_channels
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
    nn.init.normal_(model.fc.weight)  # which starts at zero
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
