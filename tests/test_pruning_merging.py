"""Merging of units that lie together, against the definition written as loops and the operator's own answer."""

import copy
import math

import numpy as np
import pytest
import torch

import daukit
from daukit.checkpoint import build_model, from_model
from daukit.errors import CheckpointError
from daukit.models.structure import dau_layers
from daukit.pruning import merge, prune


def network(units=5, **config):
    """Three layers with units so close that some merge, some of them zero, and dilations of their own."""
    torch.manual_seed(2)
    model = daukit.create_model("shallow_dau", channels=[3, 4, 5], units=units, **config)
    for i, layer in enumerate(dau_layers(model).values()):
        layer.mu.data.normal_(0, 0.8)
        layer.weight.data[0, 0, :2] = 0
        layer.dilation = ((1, 1), (2, 1), (3, 2))[i]
    return model


def merged_filter(weight, mu, dilation, within, rounded=np.asarray):
    """The definition: units of one filter as lists; the closest two of equal sign become one, again and again."""
    units = [[w, *(m * dilation)] for w, m in zip(weight, mu.T, strict=True)]
    alive = list(range(len(units)))
    while True:
        best = (math.inf, None)
        for i in alive:
            for j in alive:
                same = i < j and units[i][0] * units[j][0] > 0
                distance = math.hypot(units[i][1] - units[j][1], units[i][2] - units[j][2]) if same else math.inf
                if distance <= within:
                    best = min(best, (distance, (i, j)))
        if best[1] is None:
            return [units[i] for i in alive]
        i, j = best[1]
        (a, *p), (b, *q) = units[i], units[j]
        balance = np.array([(a * x + b * y) / (a + b) for x, y in zip(p, q, strict=True)])
        units[i] = [a + b, *(rounded(balance / dilation) * dilation)]
        alive.remove(j)


def by_filter(checkpoint, name):
    layer = checkpoint.layer(name)
    ends = layer.counts.cumsum(0).tolist()
    weight, mu = layer.weight.double().numpy(), layer.mu.double().numpy()
    return [(weight[a:b], mu[:, a:b]) for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("within", [0, 0.5, 1.5, 100])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_closest_units_of_equal_sign_merge_until_none_lie_within_the_distance(within, ragged):
    before = from_model(network())
    if ragged:
        before, _ = prune(before, 0.2)
    after, reports = merge(before, within)
    for report in reports:
        dilation = np.array(next(d for d in before.header.layers if d["name"] == report.name)["dilation"])
        expected = [merged_filter(w, mu, dilation, within) for w, mu in by_filter(before, report.name)]
        actual = by_filter(after, report.name)
        assert [len(units) for units in expected] == [len(w) for w, _ in actual]
        for units, (weight, mu) in zip(expected, actual, strict=True):
            wanted = np.array(units).reshape(-1, 3)
            # Both sides compute in float64 and the file holds float32.
            np.testing.assert_allclose(weight, wanted[:, 0], rtol=1e-6, atol=0)
            np.testing.assert_allclose((mu * dilation[:, None]).T, wanted[:, 1:], rtol=0, atol=1e-6)
        assert (report.units_before, report.units_after) == (
            before.layer(report.name).weight.numel(), sum(map(len, expected)),
        )  # fmt: skip
    assert (sum(r.units_after for r in reports) < sum(r.units_before for r in reports)) == (within > 0)


def test_weights_add_up_by_sign_and_balance_where_they_did():
    before = from_model(network())
    after, _ = merge(before, 1.0)
    for name in before.layer_names:
        for (w, mu), (v, nu) in zip(by_filter(before, name), by_filter(after, name), strict=True):
            for sign in (1, -1):
                old, new = w * (w * sign > 0), v * (v * sign > 0)
                np.testing.assert_allclose(new.sum(), old.sum(), rtol=1e-6)
                np.testing.assert_allclose(nu @ new, mu @ old, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_that_did_not_merge_keep_every_bit_and_nothing_else_changes(dtype):
    before = from_model(network().to(dtype))  # in float64, 3 * mu / 3 is not always mu
    tensors = copy.deepcopy(before.tensors)
    after, _ = merge(before, 0.3)
    assert all(torch.equal(tensors[name], before.tensors[name]) for name in tensors)
    for name in before.layer_names:
        for (w, mu), (v, nu) in zip(by_filter(before, name), by_filter(after, name), strict=True):
            old = {(*m, x) for x, m in zip(w.tolist(), mu.T.tolist(), strict=True)}
            new = {(*m, x) for x, m in zip(v.tolist(), nu.T.tolist(), strict=True)}
            assert len(new - old) <= len(old) - len(new)  # a merged unit took the place of two or more
    others = [name for name in before.tensors if name.rpartition(".")[0] not in before.layer_names]
    assert all(after.tensors[name] is before.tensors[name] for name in others)


def test_a_file_without_such_units_stays_dense():
    before = from_model(network())
    after, reports = merge(before, 0)
    assert all(report.error == report.moved == 0 for report in reports)
    assert not any(description["ragged"] for description in after.header.layers)
    assert after.header.history[-1]["operation"] == "merge"


@pytest.mark.parametrize("learn_sigma", ["none", "layer"])
def test_the_error_is_that_of_the_filters_as_the_operator_applies_them(learn_sigma):
    before = from_model(network(learn_sigma=learn_sigma))
    after, reports = merge(before, 1.0)
    answers = []
    for checkpoint in (before, after):
        model = build_model(checkpoint).double()
        answers.append([])
        for layer in dau_layers(model).values():
            layer.dilation = (1, 1)  # filters are compared in the layer's own pixels
            pixel = torch.zeros(layer.in_channels, layer.in_channels, 41, 41, dtype=torch.float64)
            pixel[range(layer.in_channels), range(layer.in_channels), 20, 20] = 1
            bias = 0 if layer.bias is None else layer.bias[:, None, None]
            answers[-1].append((layer(pixel) - bias).detach())
    for report, old, new in zip(reports, *answers, strict=True):
        assert report.units_after < report.units_before and report.moved > 0
        assert report.error == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-6)


def test_the_farthest_move_is_from_where_a_unit_was_to_where_it_went():
    before = from_model(daukit.create_model("shallow_dau", channels=[1, 1, 1], units=3))
    before.tensors["conv1.weight"].copy_(torch.tensor([3.0, 1.0, -1.0]))
    before.tensors["conv1.mu"].copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.1]])[:, None, None])
    after, (report, *_) = merge(before, 1.0)
    assert after.layer("conv1").weight.tolist() == [4.0, -1.0]
    assert after.layer("conv1").mu[1].tolist() == [0.25, pytest.approx(0.1)] and report.moved == 0.75


def test_a_merged_file_loads_and_can_be_pruned(tmp_path):
    after, reports = merge(from_model(network()), 0.5)
    daukit.write(after, tmp_path / "m.safetensors")
    pruned, report = prune(daukit.read(tmp_path / "m.safetensors"), 0.2)
    assert report.units_before == sum(r.units_after for r in reports)
    assert [entry["operation"] for entry in pruned.header.history] == ["merge", "prune"]
    assert torch.isfinite(daukit.load(tmp_path / "m.safetensors")(torch.ones(1, 1, 28, 28))).all()


@pytest.mark.parametrize("within", [-0.1, float("nan"), float("inf")])
def test_a_distance_must_be_a_length(within):
    with pytest.raises(ValueError, match="at least 0 pixels"):
        merge(from_model(network()), within)


def test_units_with_a_sigma_each_cannot_be_merged_and_no_layers_neither():
    with pytest.raises(ValueError, match="'conv1' has a sigma for every unit"):
        merge(from_model(network(learn_sigma="unit")), 0.5)
    with pytest.raises(CheckpointError, match="no DAU layers"):
        merge(from_model(daukit.create_model("shallow")), 0.5)
