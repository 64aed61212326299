"""Pruning of layers that read at whole pixels: what stays in files and networks, what units cost, and merging."""

import numpy as np
import pytest
import torch
from idx import toy_folder
from safetensors import safe_open
from test_pruning_merging import by_filter, merged_filter
from torch.utils.flop_counter import FlopCounterMode

import daukit
from daukit.checkpoint import from_model
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.pruning import Rule, merge, prune
from daukit.training import TrainingOptions
from daukit.workflows.iterate import prune_in_rounds
from daukit.workflows.prune import prune_checkpoint, prune_layer_by_layer

WHOLE = {"conv1": True, "conv2": False, "conv3": True}


@pytest.fixture
def network():
    """Layers at whole pixels with a blur, between pixels, and at whole pixels without a blur."""
    torch.manual_seed(0)
    made = daukit.create_model("shallow_dau", channels=[4, 3, 5], units=3, num_classes=4, input_size=[16, 16])
    made.conv1 = DAUConv2d(1, 4, 3, whole_pixels=True, bias=False)
    made.conv3 = DAUConv2d(3, 5, 3, whole_pixels=True, sigma=0.0, bias=False)
    return made.eval()


@pytest.fixture
def path(network, tmp_path):
    daukit.save(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def flops(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 16, 16))
    return counter.get_total_flops()


def assert_whole(path):
    with safe_open(path, framework="pt") as file:
        types = {name: file.get_slice(f"{name}.mu").get_dtype() for name in WHOLE}
    assert types == {name: "I8" if whole else "F32" for name, whole in WHOLE.items()}
    assert {name: layer.whole_pixels for name, layer in dau_layers(daukit.load(path)).items()} == WHOLE
    assert daukit.read(path).header.schema == 2


@pytest.mark.parametrize("rule", [Rule(0.3), Rule(remove=0.5), Rule(units=20, seed=1)])
def test_a_pruned_file_reads_at_whole_pixels_in_bytes_and_computes_as_with_zeros(network, path, tmp_path, rule):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    result = prune_layer_by_layer(path, rule, output=one)
    prune_checkpoint(daukit.read(path), rule, output=other)
    assert_whole(one)
    assert_whole(other)
    pruned = daukit.load(one).eval()
    with torch.no_grad():
        for name, layer in dau_layers(network).items():
            left = dau_layers(pruned)[name]
            assert 0 < left.weight.numel() < layer.weight.numel()
            kept = torch.isin(layer.weight, left.weight)  # random weights are distinct
            assert int(kept.count_nonzero()) == left.weight.numel()
            layer.weight[~kept] = 0
        images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        found, expected = pruned(images), network(images)
        assert torch.equal(daukit.load(other).eval()(images), found)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert sum(map(len, (layer.weight for layer in dau_layers(pruned).values()))) == result.units_after


@pytest.mark.parametrize("share", [1, 0.9, 0.6, 0.5])
def test_a_budget_of_multiply_adds_counts_a_unit_as_torchs_counter_does(network, path, tmp_path, share):
    result = prune_checkpoint(
        daukit.read(path), Rule(macs=share, relative_to="network"), output=tmp_path / "out.safetensors"
    )
    assert_whole(result.output)
    assert 2 * result.multiply_adds_before == flops(network)
    assert 2 * result.multiply_adds_after == flops(daukit.load(result.output).eval())
    # By hand: outputs of 16 x 16, 8 x 8 and 4 x 4; one tap at a whole pixel, with or without a blur.
    prices = {"conv1": 256, "conv2": 4 * 64, "conv3": 16}
    gone = {layer.name: layer.units_before - layer.units_after for layer in result.layers}
    assert result.multiply_adds_before - result.multiply_adds_after == sum(prices[n] * gone[n] for n in gone)
    assert any(gone.values()) == (share < 1)
    room = share * result.multiply_adds_before - result.multiply_adds_after
    assert 0 <= room < 256  # of one unit


@pytest.mark.parametrize("within", [0, 1, 2.5, 100])
def test_units_merge_by_the_pixels_that_they_read_and_into_one_of_them(network, within):
    for layer in dau_layers(network).values():
        layer.mu.data.uniform_(-2.5, 2.5)
        layer.dilation = (2, 1)
    before = from_model(network)
    after, reports = merge(before, within)
    for report in reports:
        rounded = np.round if WHOLE[report.name] else np.asarray
        dilation = np.array([2, 1])
        for (w, mu), (v, nu) in zip(by_filter(before, report.name), by_filter(after, report.name), strict=True):
            wanted = np.array(merged_filter(w, rounded(mu), dilation, within, rounded)).reshape(-1, 3)
            np.testing.assert_allclose(v, wanted[:, 0], rtol=1e-6, atol=0)
            np.testing.assert_allclose((rounded(nu) * dilation[:, None]).T, wanted[:, 1:], rtol=0, atol=1e-6)
    assert within == 0 or any(report.units_after < report.units_before for report in reports)


def test_units_on_one_pixel_become_one_that_changes_no_filter():
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[2, 2, 2], units=2, input_size=[16, 16])
    network.conv1 = DAUConv2d(1, 2, 4, whole_pixels=True, sigma=0.0, bias=False)
    with torch.no_grad():
        network.conv1.weight.abs_()
        network.conv1.mu[:] = torch.tensor([1.2, 0.8, -2.6, -3.4])  # on two pixels
    _, (report, *_) = merge(from_model(network), 0)
    assert (report.units_before, report.units_after, report.moved) == (8, 4, 0)
    assert report.error < 1e-7  # float32 sums of weights


def test_rounds_of_pruning_and_training_keep_whole_pixels(network, tmp_path):
    folder = toy_folder(tmp_path / "toy", 12, 8)
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    result = prune_in_rounds(
        from_model(network), Rule(macs=0.6, score="taylor"), rounds=2, epochs_between=1, data=folder,
        output=tmp_path / "out.safetensors", options=TrainingOptions(batch_size=6, lr=0.02),
    )  # fmt: skip
    trained = daukit.load(result.output)
    assert {name: layer.whole_pixels for name, layer in dau_layers(trained).items()} == WHOLE
    assert 2 * result.rounds[-1].multiply_adds == flops(trained.eval()) <= 0.6 * flops(network)


def test_a_model_in_memory_is_pruned_to_layers_of_whole_pixels(network):
    pruned, report = prune(network, remove=0.5)
    assert (report.units_before, report.units_after) == (93, 46)  # half a unit goes
    assert {name: layer.whole_pixels for name, layer in dau_layers(pruned).items()} == WHOLE
