"""Layers that read the same map run as one, with the answers that they have alone."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import daukit
from daukit import prepare
from daukit.preparation import PreparedDAUConv2d


class Side(nn.Module):
    """Layers side by side, each with what follows it; ``end`` makes the output of all of theirs."""

    def __init__(self, rows, end=lambda x, outputs: torch.cat(outputs, 1)):
        super().__init__()
        self.rows, self.end = nn.ModuleList(rows), end

    def forward(self, x):
        return self.end(x, [row(x) for row in self.rows])


def layer(outputs=4, units=2, inputs=3, **options):
    made = daukit.DAUConv2d(inputs, outputs, units, **options)
    nn.init.normal_(made.mu, 0, 2)
    return made


def row(made, normed, relu):
    norm = nn.BatchNorm2d(made.out_channels)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias), nn.init.normal_(norm.running_mean)
    steps = [made, *([norm] if normed else []), *([nn.ReLU()] if relu else [])]
    return nn.Sequential(*steps)


def joined(twin):
    return [one.joined for one in twin.report.layers]


def assert_same(twin, network, x):
    """As the network in float64, and bit by bit as its layers prepared one by one."""
    network = network.eval()
    expected = copy.deepcopy(network).double()(x.double()).detach()
    alone = copy.deepcopy(network)
    alone.rows = nn.ModuleList(prepare(row) for row in network.rows)
    with torch.no_grad():
        actual = twin(x)
        assert torch.equal(actual, alone(x))
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
        min_size=2, max_size=4,
    ),
    st.booleans(),
    st.sampled_from([{}, {"stride": 2}, {"dilation": 2}, {"trim": 1}]),
)  # fmt: skip
def test_layers_that_read_alike_run_as_one_and_answer_as_they_do_alone(rows, whole, options):
    torch.manual_seed(len(rows))
    made = []
    for outputs, units, bias, ragged, normed, relu in rows:
        one = layer(outputs, units, bias=bias, whole_pixels=whole, **options)
        if ragged:
            one.keep_units(torch.rand(one.weight.shape) < 0.5)
        made.append(row(one, normed, relu))
    network = Side(made)
    twin = prepare(network)
    for size in ((3, 3, 7, 9), (1, 3, 12, 5)):
        assert_same(twin, network, torch.randn(size))
    # Those with a ReLU are of one group, those without of another.
    for relu in (False, True):
        names = [f"rows.{i}.0" for i, each in enumerate(rows) if each[5] == relu]
        expected = names[0] if len(names) > 1 else None
        assert {one.joined for one in twin.report.layers if one.name in names} <= {expected}


@pytest.mark.parametrize(
    "options",
    [{"sigma": 0.7}, {"stride": 2}, {"dilation": 2}, {"max_displacement": 3}, {"trim": 2}, {"learn_sigma": True}],
)
def test_layers_that_read_in_another_way_run_alone(options):
    network = Side([layer(), layer(**options)], lambda x, outputs: outputs[0].mean((2, 3)) + outputs[1].mean((2, 3)))
    twin = prepare(network)
    assert joined(twin) == [None, None]
    assert_same(twin, network, torch.randn(2, 3, 8, 9))


def test_layers_of_groups_or_of_another_map_or_called_twice_run_alone():
    grouped = Side([layer(inputs=4, groups=2), layer(inputs=4, groups=2)])
    again = layer()
    twice = Side([layer(), again, again])
    others = Side([layer(), nn.Sequential(nn.Tanh(), layer())])
    for network, channels in ((grouped, 4), (twice, 3), (others, 3)):
        twin = prepare(network)
        assert not any(joined(twin))
        assert_same(twin, network, torch.randn(2, channels, 6, 7))


class Between(nn.Module):
    """Changes its map in place between two readers of it."""

    def __init__(self, change):
        super().__init__()
        self.one, self.two, self.change = layer(), layer(), change

    def forward(self, x):
        x = x * 2
        first = self.one(x)
        self.change(x)
        return first + self.two(x)


def put(x):
    x[:, 0] = 1


@pytest.mark.parametrize(
    "change", [put, lambda x: x.relu_(), nn.ReLU(inplace=True), lambda x: nn.functional.relu(x, True)]
)
def test_a_map_that_changes_between_its_readers_is_two_maps(change):
    network, x = Between(change).eval(), torch.randn(2, 3, 6, 7)
    twin = prepare(network)
    assert joined(twin) == [None, None]
    torch.testing.assert_close(twin(x), network(x).detach(), rtol=1e-4, atol=1e-4)


ENDS = {
    "viewed": lambda x, outputs: sum(output.view(output.shape[0], -1) for output in outputs),
    "returned": lambda x, outputs: torch.stack(outputs),
    "in place": lambda x, outputs: outputs[0].neg_().view(-1) + outputs[1].sub_(1).view(-1),
    "joined": lambda x, outputs: torch.cat(outputs, 1).view(x.shape[0], -1),
    "added": lambda x, outputs: (outputs[0] + outputs[1]).view(x.shape[0], -1),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_reads_the_outputs_finds_what_it_expects(end):
    network = Side([layer(), layer()], ENDS[end])
    twin = prepare(network)
    assert joined(twin) == ["rows.0", "rows.0"]
    assert_same(twin, network, torch.randn(3, 3, 6, 7))
    assert_same(twin, network, torch.randn(1, 3, 6, 7))


class Both(nn.Module):
    """Returns what two layers make of its input."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layer(), layer()

    def forward(self, x):
        return self.one(x), self.two(x)


def test_outputs_of_the_network_are_maps_of_their_own_and_copies_answer_alike():
    network, x = Both().eval(), torch.randn(3, 3, 6, 7)
    twin = prepare(network)
    assert joined(twin) == ["one", "one"]
    assert [type(module) for module in twin.network.children()] == [PreparedDAUConv2d]
    for each in (twin, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin)), prepare(twin)):
        outputs = each(x)
        assert each.report == twin.report and all(output.is_contiguous() for output in outputs)
        for output, expected in zip(outputs, network(x), strict=True):
            torch.testing.assert_close(output, expected.detach(), rtol=1e-4, atol=1e-4)
