"""Thresholds of single layers, budgets solved to the unit, random removal as a control."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import daukit
from daukit.checkpoint import from_model
from daukit.errors import CheckpointError
from daukit.pruning import RELATIVE_TO, one_layer_at_a_time, prune, sweep
from daukit.texts import csv_text

NAMES = ("conv1", "conv2", "conv3")


def checkpoint_of(levels=None, seed=1):
    """A network of 3 x (4 + 24 + 48) units; with ``levels``, of weights that are multiples of 1 / levels."""
    torch.manual_seed(seed)
    checkpoint = from_model(daukit.create_model("shallow_dau", channels=[4, 6, 8], units=3))
    for name in NAMES if levels else ():
        weight = checkpoint.tensors[f"{name}.weight"]
        weight.copy_((weight * levels / weight.abs().max()).round() / levels)
    return checkpoint


def weights(checkpoint):
    return {name: checkpoint.layer(name).weight.double().numpy() for name in NAMES}


def shares(checkpoint, relative_to):
    """Unit by unit, |w| over the reference, by its definition."""
    largest = max(np.abs(w).max() for w in weights(checkpoint).values())
    result = []
    for name in NAMES:
        weight = checkpoint.tensors[f"{name}.weight"].double().numpy()
        for o, c, k in np.ndindex(weight.shape):
            reference = {
                "layer": np.abs(weight).max(),
                "channel": np.abs(weight[o]).max(),
                "network": largest,
                "filter": np.abs(weight[o, c]).max(),
            }[relative_to]
            result.append(abs(weight[o, c, k]) / reference)
    return result


@pytest.mark.parametrize("relative_to", RELATIVE_TO)
@pytest.mark.parametrize("units", [0, 1, 100, 227, 228])
def test_a_budget_keeps_exactly_the_units_of_the_largest_share_and_of_equal_ones_the_last(relative_to, units):
    before = checkpoint_of(levels=7)
    ratio = shares(before, relative_to)
    ranked = sorted(range(len(ratio)), key=lambda i: (ratio[i], i))
    removed, kept = set(ranked[: 228 - units]), ranked[228 - units :]
    after, report = prune(before, relative_to=relative_to, units=units)
    flat = np.concatenate(list(weights(before).values()))
    expected = [w for i, w in enumerate(flat) if i not in removed]
    assert np.array_equal(np.concatenate(list(weights(after).values())), expected)
    assert report.units_after == units
    if units:
        least = ratio[kept[0]]
        assert report.least_kept == least and report.ties == sum(ratio[i] == least for i in removed)
    else:
        assert report.least_kept is None


def test_a_budget_of_the_network_is_torchs_global_pruning():
    before = checkpoint_of()
    holders = []
    for name in NAMES:
        holders.append(nn.Module())
        holders[-1].weight = nn.Parameter(before.tensors[f"{name}.weight"].clone())
    pairs = [(holder, "weight") for holder in holders]
    torch_prune.global_unstructured(pairs, pruning_method=torch_prune.L1Unstructured, amount=128)
    after, _ = prune(before, relative_to="network", units=100)
    for name, holder in zip(NAMES, holders, strict=True):
        assert torch.equal(after.layer(name).weight, holder.weight_orig[holder.weight_mask.bool()].detach())


@pytest.mark.parametrize(("share", "removed"), [(0, 0), (1, 228), (0.5, 114), (0.13, 30), (0.25, 57), (0.375, 86)])
def test_a_share_to_remove_is_solved_to_the_nearest_unit_and_half_a_unit_goes(share, removed):
    # 0.13 * 228 = 29.64; 0.375 * 228 = 85.5
    assert prune(checkpoint_of(), remove=share)[1].units_after == 228 - removed


def test_a_layer_of_zeros_is_what_a_budget_takes_last():
    before = checkpoint_of()
    before.tensors["conv1.weight"].zero_()
    assert prune(before, units=12 + 2)[1].units_by_layer["conv1"] == (12, 12)
    assert prune(before, units=3)[1].units_after == 3


def test_a_budget_and_the_threshold_that_it_found_remove_the_same():
    before = checkpoint_of()
    by_budget, report = prune(before, units=90)
    by_threshold, _ = prune(before, report.least_kept * (1 - 1e-12))  # below the share by less than any other unit is
    assert report.ties == 0
    assert all(torch.equal(by_budget.tensors[name], by_threshold.tensors[name]) for name in by_budget.tensors)


def test_layers_have_thresholds_of_their_own_beside_the_common_one():
    before = checkpoint_of()
    after, report = prune(before, 0.3, layer_thresholds={"conv2": 0.7, "conv3": 0})
    for name, threshold in (("conv1", 0.3), ("conv2", 0.7), ("conv3", 0)):
        weight = weights(before)[name]
        kept = weight[~(np.abs(weight) < threshold * np.abs(weight).max())]
        assert np.array_equal(weights(after)[name], kept)
    assert [layer.threshold for layer in report.layers] == [0.3, 0.7, 0]
    assert after.header.history[-1]["arguments"] == {
        "threshold": 0.3, "layer_thresholds": {"conv2": 0.7, "conv3": 0}, "relative_to": "layer",
    }  # fmt: skip


@pytest.mark.parametrize("relative_to", RELATIVE_TO)
def test_pruning_one_layer_at_a_time_leaves_the_others_alone(relative_to):
    before = checkpoint_of()
    together = prune(before, 0.4, relative_to)[0]
    seen = []
    for name, alone, report in one_layer_at_a_time(before, [0.4], relative_to):
        for other in NAMES:
            expected = together if other == name else before
            assert torch.equal(alone.layer(other).weight, expected.layer(other).weight)
        assert report.units_by_layer[name][1] == alone.layer(name).weight.numel()
        seen.append(name)
    assert seen == list(NAMES)


@pytest.mark.parametrize(
    "rule",
    [
        {"threshold": 0.4},
        {"units": 100},
        pytest.param({"remove": 0.3, "relative_to": "network"}, marks=pytest.mark.slow),
    ],
)
def test_random_removal_takes_as_many_of_every_layer_whatever_their_weight(rule):
    before = checkpoint_of()
    by_weight = prune(before, **rule)[1]
    kept = np.zeros(228)
    for seed in range(300):
        after, report = prune(before, **rule, seed=seed)
        assert report.units_by_layer == by_weight.units_by_layer
        if seed < 2:
            again = prune(before, **rule, seed=seed)[0]
            assert all(torch.equal(after.tensors[name], again.tensors[name]) for name in after.tensors)
        flat = np.concatenate([np.isin(weights(before)[name], weights(after)[name]) for name in NAMES])
        kept += flat
    # Every unit of a layer stays as often as any other: a binomial count, here within five standard deviations.
    start = 0
    for count, left in by_weight.units_by_layer.values():
        share = left / count
        deviation = np.abs(kept[start : start + count] - 300 * share).max()
        assert deviation <= 5 * np.sqrt(300 * share * (1 - share))
        start += count


def test_the_sweep_of_every_reference_counts_what_pruning_removes():
    before = checkpoint_of(levels=7)
    for relative_to in RELATIVE_TO:
        for report in sweep(before, [0, 2 / 7, 0.5, 1], relative_to):
            ratio = np.array(shares(before, relative_to))
            assert report.units_after == sum(not r < report.rule.threshold for r in ratio)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_way_to_prune_changes_what_it_is_given(dtype):
    before = from_model(daukit.create_model("shallow_dau", channels=[4, 6, 8], units=3).to(dtype))
    tensors = {name: tensor.clone() for name, tensor in before.tensors.items()}
    for rule in ({"threshold": 0.3}, {"units": 90, "relative_to": "channel"}, {"remove": 0.5, "seed": 0}):
        after, _ = prune(before, **rule)
        assert bool((after.layer("conv3").weight < 0).any())  # signs are kept
    sweep(before, [0.1, 0.5], "filter")
    assert all(torch.equal(tensors[name], before.tensors[name]) for name in tensors)


def test_an_empty_sweep_reports_nothing_and_no_layers_are_an_error():
    assert sweep(checkpoint_of(), []) == []
    plain = from_model(daukit.create_model("shallow"))
    for wrong in (lambda: sweep(plain, [0.1]), lambda: prune(plain, 0.1), lambda: prune(plain, units=3)):
        with pytest.raises(CheckpointError, match="no DAU layers"):
            wrong()


def test_a_table_is_csv_with_empty_cells_for_none():
    assert csv_text(("a", "b"), [(0.1, None), ("x,y", 2)]) == 'a,b\n0.1,\n"x,y",2\n'


@pytest.mark.parametrize(
    ("rule", "error", "match"),
    [
        ({}, ValueError, "only one of them"),
        ({"threshold": 0.1, "units": 3}, ValueError, "only one of them"),
        ({"units": 3, "remove": 0.1}, ValueError, "only one of them"),
        ({"units": -1}, ValueError, "at least 0"),
        ({"units": 229}, ValueError, "only 228"),
        ({"remove": 1.5}, ValueError, "within"),
        ({"threshold": float("nan")}, ValueError, "within"),
        ({"layer_thresholds": {"conv2": 2}}, ValueError, "threshold of conv2 must be within"),
        ({"layer_thresholds": {"conv22": 0.2}}, CheckpointError, "did you mean 'conv2'"),
    ],
)
def test_a_wrong_rule_raises(rule, error, match):
    with pytest.raises(error, match=match):
        prune(checkpoint_of(), **rule)


def test_the_history_of_a_budget_is_json_with_its_seed():
    after, _ = prune(checkpoint_of(), remove=0.3, seed=4, relative_to="channel")
    (entry,) = after.header.history
    assert entry["arguments"] == {"remove": 0.3, "seed": 4, "relative_to": "channel"}
    assert json.loads(after.header.to_json())["history"][0]["operation"] == "prune"
