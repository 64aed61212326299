"""Pruning: which units go, what the file then holds, and that the network computes the same."""

import copy

import numpy as np
import pytest
import torch
from safetensors import safe_open

import daukit
from daukit.checkpoint import build_model, from_model
from daukit.models.structure import dau_layers
from daukit.pruning import RELATIVE_TO, prune, sweep

X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def checkpoint_of(**config):
    torch.manual_seed(1)
    model = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=3, **config)
    for layer in dau_layers(model).values():
        layer.mu.data.normal_(0, 2)
    return from_model(model)


def expected_keep(weight, threshold, relative_to, largest_of_network):
    """Unit by unit, by the definition: a unit goes when |w| < threshold * reference."""
    keep = np.ones(weight.shape, dtype=bool)
    for o, c, k in np.ndindex(weight.shape):
        reference = {
            "layer": np.abs(weight).max(),
            "channel": np.abs(weight[o]).max(),
            "network": largest_of_network,
            "filter": np.abs(weight[o, c]).max(),
        }[relative_to]
        keep[o, c, k] = not abs(weight[o, c, k]) < threshold * reference
    return keep


@pytest.mark.parametrize("relative_to", RELATIVE_TO)
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
def test_exactly_the_units_below_the_threshold_go(threshold, relative_to):
    before = checkpoint_of()
    after, report = prune(before, threshold, relative_to)
    names = before.layer_names
    dense = {name: before.tensors[f"{name}.weight"].double().numpy() for name in names}
    largest = max(np.abs(w).max() for w in dense.values())
    for name, counted in zip(names, report.layers, strict=True):
        keep = expected_keep(dense[name], threshold, relative_to, largest)
        assert np.array_equal(after.layer(name).weight.double().numpy(), dense[name][keep])
        assert np.array_equal(after.layer(name).counts.numpy(), keep.sum(-1).ravel())
        assert (counted.units_before, counted.units_after) == (keep.size, keep.sum())


def test_zero_removes_nothing_and_an_all_zero_layer_loses_nothing():
    before = checkpoint_of()
    before.tensors["conv2.weight"].zero_()
    assert prune(before, 0.0)[1].units_after == prune(before, 0.0)[1].units_before
    counts = {layer.name: layer for layer in prune(before, 0.5)[1].layers}
    assert counts["conv2"].units_after == counts["conv2"].units_before
    assert counts["conv3"].units_after < counts["conv3"].units_before


def test_a_filters_largest_unit_always_stays():
    after, _ = prune(checkpoint_of(), 1.0, "filter")
    assert all(int(after.layer(name).counts.min()) >= 1 for name in after.layer_names)


@pytest.mark.parametrize("learn_sigma", ["none", "layer", "unit"])
def test_prune_save_load_forward_equals_the_zero_weight_model(tmp_path, learn_sigma):
    before = checkpoint_of(learn_sigma=learn_sigma)
    after, report = prune(before, 0.3)
    assert report.units_after < report.units_before
    path = tmp_path / "pruned.safetensors"
    daukit.write(after, path)
    zeroed = build_model(before)
    for layer in dau_layers(zeroed).values():
        w = layer.weight.data
        w[w.abs() < 0.3 * w.abs().max()] = 0
    expected, actual = zeroed(X), daukit.load(path)(X)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_counts_reported_are_those_of_the_raw_file(tmp_path):
    after, report = prune(checkpoint_of(), 0.3)
    path = tmp_path / "pruned.safetensors"
    size = daukit.write(after, path)
    with safe_open(path, framework="np") as file:
        weights = {n: file.get_tensor(n) for n in file.keys() if n.startswith("conv") and n.endswith("weight")}
        counts = {n: file.get_tensor(n) for n in file.keys() if n.endswith("unit_counts")}
    assert {n.split(".")[0]: w.size for n, w in weights.items()} == {c.name: c.units_after for c in report.layers}
    assert {n.split(".")[0]: int(c.sum()) for n, c in counts.items()} == {c.name: c.units_after for c in report.layers}
    assert size == path.stat().st_size


def test_pruning_twice_equals_pruning_once_by_the_larger_threshold():
    before = checkpoint_of()
    once = prune(before, 0.4)[0]
    twice = prune(prune(before, 0.2)[0], 0.4)[0]
    assert all(torch.equal(once.tensors[name], twice.tensors[name]) for name in once.tensors)
    assert [entry["operation"] for entry in twice.header.history] == ["prune", "prune"]


def test_the_sweep_counts_what_pruning_removes_and_changes_nothing():
    before = checkpoint_of()
    tensors = copy.deepcopy(before.tensors)
    thresholds = [0.0, 0.1, 0.5]
    for report, threshold in zip(sweep(before, thresholds, "channel"), thresholds, strict=True):
        assert report == prune(before, threshold, "channel")[1]
    assert all(torch.equal(tensors[name], before.tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("threshold", "relative_to", "match"), [(1.1, "layer", "within"), (-0.1, "layer", "within"), (0.1, "net", "one of")]
)
def test_a_wrong_argument_raises(threshold, relative_to, match):
    with pytest.raises(ValueError, match=match):
        prune(checkpoint_of(), threshold, relative_to)
