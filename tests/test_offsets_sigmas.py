"""Sigmas against numpy's histograms and planted values."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from planted import a_file, one_layer

from daukit.errors import CheckpointError
from daukit.offsets import SIGMA_COLUMNS, sigma_distributions, sigmas_to_csv

EPS = np.finfo(np.float64).eps


def general(weight, sigma):
    """A file with one layer of the general form."""
    sigma = torch.as_tensor(sigma)
    return one_layer(weight, torch.zeros(2, len(weight)), form="gaussian", sigmas=sigma.reshape(1, 1, -1))


def random_sigmas(units=3000):
    generator = torch.Generator().manual_seed(0)
    before = 0.3 + 0.5 * torch.rand(units, generator=generator)
    return torch.randn(units, generator=generator), before, before + 0.05 * torch.randn(units, generator=generator)


def test_densities_are_numpys_histograms_weighted_by_the_later_weights():
    weight, before, after = random_sigmas()
    (layer,) = sigma_distributions(general(weight, after), before=general(torch.ones(3000), before), shares=[1, 0.25])
    size, now, then = (tensor.double().numpy() for tensor in (weight.abs(), after, before))
    bound = 2 * len(size) * EPS
    for values, truth in ((layer.now, now), (layer.before, then), (layer.change, now - then)):
        assert (values.low, values.high) == (truth.min(), truth.max())
        assert values.mean == pytest.approx(np.average(truth, weights=size), abs=bound)
        for curve, share in zip(values.distributions, (1, 0.25), strict=True):
            keep = np.argsort(-size)[: int(share * len(size))]
            expected, _ = np.histogram(truth[keep], values.edges, weights=size[keep], density=True)
            np.testing.assert_allclose(curve.density, expected, rtol=bound)
            assert curve.density.sum() * (values.edges[1] - values.edges[0]) == pytest.approx(1, abs=bound)
            assert curve.units == len(keep)
    assert layer.per_unit


def test_quantiles_of_changes_have_signs_and_weights():
    # Shares of the weight up to -0.25, 0, 0.25 and 0.5: 0.1, 0.5, 0.9, 1; all exact in binary.
    files = [general([4.0, 1.0, -4.0, 1.0], sigma) for sigma in ([0.5, 0.25, 0.75, 1.0], [0.5, 0.5, 0.5, 0.5])]
    (layer,) = sigma_distributions(files[0], before=files[1])
    assert layer.change.quantiles == {0.25: 0.0, 0.5: 0.0, 0.75: 0.25, 0.9: 0.25}
    assert layer.change.mean == 0.125
    assert (layer.change.low, layer.change.high) == (-0.25, 0.5)


@pytest.mark.parametrize(("words", "value"), [({"sigma": 0.5}, 0.5), ({"sigmas": [0.75]}, 0.75)])
def test_one_sigma_of_a_layer_counts_for_each_of_its_units(words, value):
    file = one_layer([1.0, -3.0], torch.zeros(2, 2), **words)
    (layer,) = sigma_distributions(file, before=one_layer([1.0, 1.0], torch.zeros(2, 2), sigma=0.25))
    assert not layer.per_unit
    assert (layer.now.mean, layer.now.low, layer.now.high, layer.now.distributions[0].units) == (value, value, value, 2)
    ((bin,),) = np.argwhere(layer.now.distributions[0].density)
    assert layer.now.edges[bin] <= value < layer.now.edges[bin + 1] or value == layer.now.edges[-1]
    assert layer.change.mean == value - 0.25


def test_without_a_second_file_there_is_no_change():
    (layer,) = sigma_distributions(general([1.0], [0.5]))
    assert (layer.before, layer.change) == (None, None)


def test_layers_of_a_group_keep_their_own_sigmas():
    flat = {"weight": [1.0], "mu": [[0.0], [0.0]]}
    (group,) = sigma_distributions(
        a_file({"a": {**flat, "sigma": 0.25}, "b": {**flat, "sigma": 0.75}}), group="network"
    )
    assert (group.layers, group.now.mean, group.now.low, group.now.high) == (("a", "b"), 0.5, 0.25, 0.75)


def test_no_units_and_no_weight_have_no_distribution():
    (empty,), (zero,) = sigma_distributions(general([], [])), sigma_distributions(general([0.0], [0.5]))
    assert (empty.now.mean, empty.now.low, empty.now.quantiles) == (None, None, None)
    assert (zero.now.mean, zero.now.low, zero.units) == (None, 0.5, 1)
    assert sigmas_to_csv([empty, zero]).splitlines() == [",".join(SIGMA_COLUMNS)]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (general([1.0, 1.0], [0.5]), "1 sigmas for 2 units, of which 2 were expected"),
        (one_layer([1.0, 1.0], torch.zeros(2, 2), sigmas=[0.5, 0.5]), "2 sigmas for 2 units, of which 1 were expected"),
        (one_layer([1.0], torch.zeros(2, 1), sigma=None), "there is no conv.sigma"),
        (general([1.0], [math.inf]), "1 of 1 values of sigma are NaN or infinite"),
    ],
)
def test_damaged_sigmas_are_refused(file, message):
    with pytest.raises(CheckpointError, match=message):
        sigma_distributions(file)


def test_the_table_holds_every_number_of_the_figure():
    weight, before, after = random_sigmas(40)
    (layer,) = sigma_distributions(general(weight, after), before=general(weight, before), shares=[1, 0.5], bins=7)
    rows = list(csv.DictReader(io.StringIO(sigmas_to_csv([layer]))))
    assert tuple(rows[0]) == SIGMA_COLUMNS
    for kind, values in (("sigma", layer.now), ("before", layer.before), ("change", layer.change)):
        numbers = [float(row["density"]) for row in rows if row["kind"] == kind]
        np.testing.assert_array_equal(numbers, np.concatenate([curve.density for curve in values.distributions]))
        centres = [float(row["value"]) for row in rows if row["kind"] == kind][:7]
        np.testing.assert_allclose(centres, values.edges[:-1] + np.diff(values.edges) / 2, rtol=0, atol=4 * EPS)
