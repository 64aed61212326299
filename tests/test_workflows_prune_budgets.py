"""Budgets of multiply-adds and of time, and recalibration, as Python calls them: against counts and torch's own."""

import copy
from fractions import Fraction

import pytest
import torch
from idx import toy_folder
from torch import nn
from torch.optim.swa_utils import update_bn

import daukit
from daukit import DAUConv2d, benchmark
from daukit.benchmark import Quartiles
from daukit.checkpoint import LayerUnits, from_model
from daukit.datasets import load_folder, load_images
from daukit.errors import CheckpointError, DataError
from daukit.models import record_of
from daukit.models.costs import multiply_adds
from daukit.pruning import Rule, select
from daukit.workflows.prune import prune_checkpoint
from daukit.workflows.recalibration import Recalibrator, recalibrate

SHAPE = (1, 1, 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 520, 8)


@pytest.fixture
def network(folder):
    torch.manual_seed(0)
    made = daukit.create_model("shallow_dau", channels=[4, 3, 5], units=2, num_classes=4, input_size=[16, 16])
    record_of(made).preprocessing = load_folder(folder, "train").preprocessing()
    return made


@pytest.mark.parametrize("share", [1, 0.9, 0.6, 0.45])
@pytest.mark.parametrize("score", [None, lambda model, name, layer: torch.ones_like(layer.weight)])
def test_multiply_adds_are_brought_within_their_budget_and_not_a_unit_further(network, share, score):
    checkpoint, whole = from_model(network), sum(multiply_adds(network, SHAPE).values())
    rule = Rule(macs=share, relative_to="network")
    result = prune_checkpoint(checkpoint, rule, score=score)
    limit = Fraction(str(share)) * whole
    assert result.multiply_adds_before == whole and result.multiply_adds_after <= limit
    # By hand: 4 taps at 16 x 16, 8 x 8 and 4 x 4 outputs; one unit fewer would have been too much.
    prices = {"conv1": 4 * 256, "conv2": 4 * 64, "conv3": 4 * 16}
    gone = {layer.name: layer.units_before - layer.units_after for layer in result.layers}
    assert whole - result.multiply_adds_after == sum(prices[name] * count for name, count in gone.items())
    dearest = max((prices[name] for name, count in gone.items() if count), default=0)
    assert result.multiply_adds_after > limit - dearest or not dearest
    assert result.macs == share and result.ties is None


class OneLayer:
    """A source of the units of one layer."""

    path, layer_names = None, ("0",)

    def __init__(self, units):
        self.layer = lambda name: units


def test_units_of_a_layer_of_whole_pixels_are_chosen_and_removed_like_others():
    torch.manual_seed(0)
    layer = DAUConv2d(2, 3, 4, whole_pixels=True, sigma=0.0, init="uniform").eval()
    units = LayerUnits(
        "0", {"in_channels": 2, "groups": 1}, layer.weight.detach().flatten(), layer.mu.detach().reshape(2, -1),
        layer.unit_counts,
    )  # fmt: skip
    _, keeps = select(OneLayer(units), Rule(units=11))
    images = torch.randn(2, 2, 7, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        masked = copy.deepcopy(layer)
        masked.weight[~keeps["0"].reshape(masked.weight.shape)] = 0
        layer.keep_units(keeps["0"].reshape(layer.weight.shape))
        found, expected = layer(images), masked(images)
    assert layer.weight.numel() == 11 and layer.whole_pixels
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_convolution_counts_but_cannot_go(network):
    network.conv2 = nn.Conv2d(4, 3, 3, padding=1, bias=False)
    whole, empty = (sum(multiply_adds(network, SHAPE, units).values()) for units in (None, {"conv1": 0, "conv3": 0}))
    model = from_model(network)
    with pytest.raises(ValueError, match="cannot be reached") as told:
        prune_checkpoint(model, Rule(macs=0.01))
    lowest = float(str(told.value).partition("without any unit ")[2].split()[0])
    assert empty / whole <= lowest <= empty / whole + 1e-4
    assert prune_checkpoint(model, Rule(macs=lowest)).units_after == 0


def test_a_share_of_multiply_adds_is_one_of_the_network_before_units_were_merged(network):
    network.conv3.mu.data.zero_()
    network.conv3.weight.data.abs_()
    result = prune_checkpoint(from_model(network), Rule(macs=0.95), merge_within=0.1)
    assert result.merge.layers[2].units_after == 15
    assert result.multiply_adds_after <= 0.95 * result.multiply_adds_before


@pytest.fixture
def paced(monkeypatch):
    """Times as if every unit took one millisecond in conv1, two in conv2 and four in conv3, and all else a hundred."""

    def times(tasks, rounds):
        found = {}
        for name, task in tasks.items():
            task()
            what, _, layer = name.partition(" ")
            cost = {"conv1": 1, "conv2": 2, "conv3": 4}
            units = {"conv1": 8, "conv2": 24, "conv3": 30}
            if layer in cost:
                time = 10 + cost[layer] * units[layer] / (1 if what == "all" else 2)
            else:
                time = 100 + sum(cost[one] * units[one] for one in cost)
            found[name] = Quartiles(time, float(time), time)
        return found

    monkeypatch.setattr(benchmark, "interleave", times)


@pytest.mark.usefixtures("paced")
def test_a_budget_of_time_goes_by_the_time_of_a_unit_of_each_layer(network):
    ones = lambda model, name, layer: torch.ones_like(layer.weight)  # noqa: E731
    result = prune_checkpoint(from_model(network), Rule(time_budget=0.75, relative_to="network"), score=ones)
    # 276 ms in all, and 69 are to go: of equal units the first go first, 8 of 1 ms, 24 of 2 ms and 4 of 4 ms.
    assert [layer.units_after for layer in result.layers] == [0, 0, 26]
    assert (result.plan.network, result.plan.now, result.plan.predicted) == (276, 276, 204)
    assert [(one.fixed, one.per_unit) for one in result.plan.layers] == [(10, 1), (10, 2), (10, 4)]
    assert result.plan.input == (8, 1, 16, 16) and result.time is not None
    with pytest.raises(ValueError, match=r"a share of 0.3 .*276 milliseconds cannot be reached.* 0.3624 of them"):
        prune_checkpoint(from_model(network), Rule(time_budget=0.3))


def test_times_of_units_are_measured_where_none_are_made_up(network):
    result = prune_checkpoint(from_model(network), Rule(time_budget=1))
    assert result.units_after == result.units_before
    assert result.plan.network > 0 and {one.name for one in result.plan.layers} == {"conv1", "conv2", "conv3"}


def test_recalibration_is_torchs_own_and_changes_nothing_else(network, folder):
    before = from_model(network)
    recalibrate = Recalibrator(folder)
    after = recalibrate(before)
    assert recalibrate.images == 520  # batches of 250, 250 and 20
    twin = copy.deepcopy(network)
    images = record_of(network).preprocessing.normalize(load_images(folder, "train"))
    update_bn(images.split(250), twin)
    for name, tensor in twin.state_dict().items():
        assert torch.equal(after.tensors[name], tensor), name
        assert "running" in name or "tracked" in name or torch.equal(tensor, before.tensors[name])
    assert not torch.equal(after.tensors["bn2.running_var"], before.tensors["bn2.running_var"])
    assert after.header.history[-1]["operation"] == "recalibrate"
    assert after.header.history[-1]["arguments"] == {"images": 520, "split": "train"}
    built = daukit.checkpoint.build_model(after)
    assert {norm.momentum for norm in built.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_recalibration_needs_no_labels(folder, tmp_path, network):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes((folder / "train-images-idx3-ubyte.gz").read_bytes())
    found, expected = (Recalibrator(one)(from_model(network)).tensors for one in (tmp_path, folder))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_only_batch_norms_are_in_training_meanwhile_and_modes_and_momenta_come_back():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.5), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    network[2].momentum = 0.3
    network[1].train()
    network[2].eval()
    images = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    recalibrate(network, map(network, images.split(3)))
    with torch.no_grad():
        seen = network[0](images)  # with dropout at work it would be another
    assert torch.allclose(network[2].running_mean, seen.mean((0, 2, 3)), atol=1e-6)
    assert (network[1].training, network[2].training, network[2].momentum) == (True, False, 0.3)


def test_what_cannot_be_recalibrated_is_said(folder, tmp_path, network):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes((folder / "t10k-images-idx3-ubyte").read_bytes())
    with pytest.raises(DataError, match=r"there is no train-images.*split=\"test\" takes its t10k"):
        Recalibrator(tmp_path)(from_model(network))
    plain = daukit.create_model("shallow_dau", channels=[2, 2, 2], units=1, num_classes=4, input_size=[16, 16])
    with pytest.raises(DataError, match="no preprocessing"):
        Recalibrator(folder)(from_model(plain))
    for name in ("bn1", "bn2", "bn3"):
        setattr(network, name, nn.Identity())
    with pytest.raises(CheckpointError, match=r"no batch norm .* drop recalibrate"):
        Recalibrator(folder)(from_model(network))
