"""Changes of displacements against planted moves, numpy's histograms and identities of weighted means."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from planted import a_file, one_layer

from daukit.errors import CheckpointError
from daukit.offsets import CHANGE_COLUMNS, changes_to_csv, displacement_changes
from daukit.pruning import prune

EPS = np.finfo(np.float64).eps


def follow(weight, before, after, now=None, then=None, **options):
    """Changes of one layer, which may be described otherwise ``now`` than ``then``."""
    file = one_layer(weight, after, **(now or {}))
    (layer,) = displacement_changes(file, one_layer([7.0] * len(weight), before, **(then or {})), **options)
    return layer


def random_moves(units=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    before = 6 * torch.rand(2, units, generator=generator) - 3
    after = (before + torch.randn(2, units, generator=generator)).clamp(-4, 4)
    return torch.randn(units, generator=generator), before, after


def test_one_unit_is_found_where_it_came_from_where_it_is_and_in_between():
    layer = follow([-2.0], [[1.0], [-1.5]], [[-2.0], [2.5]])
    assert (layer.mean_distance, layer.mean_change) == (5.0, (-3.0, 4.0))
    ((row, column),) = np.argwhere(layer.distributions[0].density_2d)
    assert layer.edges[row] <= -3.0 < layer.edges[row + 1]
    assert layer.edges[column] <= 4.0 < layer.edges[column + 1]
    (bin,) = np.flatnonzero(layer.distributions[0].density)
    assert layer.distance_edges[bin] <= 5.0 < layer.distance_edges[bin + 1]
    ((row, column),) = np.argwhere(layer.flow.density)
    assert layer.flow.edges[row] <= -2.0 < layer.flow.edges[row + 1]
    assert layer.flow.edges[column] <= 2.5 < layer.flow.edges[column + 1]
    assert layer.flow.before[:, row, column].tolist() == [1.0, -1.5]
    assert layer.flow.after[:, row, column].tolist() == [-2.0, 2.5]


@pytest.mark.parametrize("share", [1, 0.25])
def test_densities_are_numpys_histograms_of_the_differences_weighted_by_the_later_weights(share):
    weight, before, after = random_moves()
    layer = follow(weight, before, after, shares=[share])
    size, (y, x) = weight.abs().double().numpy(), (after.double() - before.double()).numpy()
    keep = np.argsort(-size)[: int(share * len(size))]
    line, _ = np.histogram(np.hypot(y, x)[keep], layer.distance_edges, weights=size[keep], density=True)
    square, _, _ = np.histogram2d(y[keep], x[keep], [layer.edges] * 2, weights=size[keep], density=True)
    bound = 2 * len(size) * EPS  # a sum of n numbers of one sign is off by less than n eps, on either side
    np.testing.assert_allclose(layer.distributions[0].density, line, rtol=bound)
    np.testing.assert_allclose(layer.distributions[0].density_2d, square, rtol=bound)
    assert layer.mean_distance == pytest.approx(np.average(np.hypot(y, x), weights=size), rel=bound)


def test_no_mass_is_lost_and_the_arrows_add_up_to_the_drift_of_the_whole():
    weight, before, after = random_moves()
    layer = follow(weight, before, after)
    bound = 4 * len(weight) * EPS
    for distribution in layer.distributions:
        assert distribution.density.sum() * layer.bin_width == pytest.approx(1, abs=bound)
        assert distribution.density_2d.sum() * layer.bin_width**2 == pytest.approx(1, abs=bound)
    flow = layer.flow
    mass = flow.density * (flow.edges[1] - flow.edges[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=bound)
    size = weight.abs().double().numpy()
    for axis in (0, 1):
        arrows = np.nansum(mass * (flow.after[axis] - flow.before[axis]))
        moved = np.average(after[axis].double() - before[axis].double(), weights=size)
        assert arrows == pytest.approx(moved, abs=8 * bound)  # of displacements of at most 8 pixels
        assert layer.mean_change[axis] == pytest.approx(moved, abs=8 * bound)


def test_units_that_stayed_are_counted_whatever_the_initialiser():
    weight, before, _ = random_moves(100)
    after = before.clone()
    after[0, 30:] += 0.25
    layer = follow(weight, before, after, near=0.1)
    assert layer.unmoved.units == 0.3
    size = weight.abs().double().numpy()
    assert layer.unmoved.weight == pytest.approx(size[:30].sum() / size.sum(), rel=200 * EPS)
    assert follow(weight, before, after, near=0.3).unmoved.units == 1.0


def test_a_file_and_itself_differ_by_nothing():
    weight, before, _ = random_moves(50)
    layer = follow(weight, before, before)
    assert (layer.mean_distance, layer.mean_change, layer.unmoved.units) == (0.0, (0.0, 0.0), 1.0)
    assert set(layer.quantiles.values()) == {0.0}
    np.testing.assert_array_equal(np.argwhere(layer.distributions[0].density_2d), [[39, 39]])  # the middle of 79


def test_moving_back_is_the_density_turned_around():
    weight, before, after = random_moves()
    there, back = follow(weight, before, after), follow(weight, after, before)
    one, other = (layer.distributions[0].density_2d for layer in (there, back))
    np.testing.assert_allclose(other[::-1, ::-1], one, rtol=2 * len(weight) * EPS)


def test_quantiles_are_weighted_by_the_later_weights():
    # Shares of the weight that moved by at most 1, 2, 3 and 4 pixels: 0.4, 0.5, 0.9, 1.
    layer = follow([4.0, -1.0, 4.0, -1.0], torch.zeros(2, 4), [[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 3.0, -4.0]])
    assert layer.quantiles == {0.25: 1.0, 0.5: 2.0, 0.75: 3.0, 0.9: 3.0}
    assert layer.mean_distance == 2.2


def test_changes_are_of_input_pixels_so_a_layer_that_was_dilated_moved_its_units():
    layer = follow([1.0], [[1.0], [-1.0]], [[1.0], [-1.0]], {"dilation": [2, 3], "max_displacement": 4.0})
    assert layer.mean_change == (1.0, -2.0)
    assert layer.limit == (8.0, 12.0)


def test_a_group_is_its_layers_together():
    weight, before, after = random_moves(60)
    cut = {"a.0": slice(0, 20), "a.1": slice(20, 60)}
    files = [a_file({n: {"weight": weight[s], "mu": mu[:, s]} for n, s in cut.items()}) for mu in (after, before)]
    (together,) = displacement_changes(*files, group="network")
    (alone,) = [follow(weight, before, after)]
    assert (together.name, together.layers, together.units) == ("network", ("a.0", "a.1"), 60)
    np.testing.assert_array_equal(together.distributions[0].density_2d, alone.distributions[0].density_2d)
    np.testing.assert_array_equal(together.flow.before, alone.flow.before)


def test_units_without_weight_have_no_distribution_but_are_counted():
    layer = follow([0.0, 0.0], torch.zeros(2, 2), [[1.0, 0.0], [0.0, 0.0]])
    assert (layer.mean_distance, layer.quantiles, layer.mean_change) == (None, None, None)
    assert (layer.unmoved.units, layer.unmoved.weight) == (0.5, None)
    assert not layer.flow.density.any()
    assert changes_to_csv([layer]).splitlines() == [",".join(CHANGE_COLUMNS)]


def test_a_layer_that_lost_all_its_units_has_no_changes():
    layer = follow([], torch.zeros(2, 0), torch.zeros(2, 0))
    assert (layer.units, layer.mean_distance, layer.unmoved.units) == (0, None, 0.0)


def test_a_pruned_file_has_other_units():
    weight, before, after = random_moves(50)
    pruned, _ = prune(one_layer(weight, after), 0.5)
    with pytest.raises(CheckpointError, match=r"'conv' has 50 units.*only the same units.*before pruning"):
        displacement_changes(pruned, one_layer(weight, before))


def test_a_layer_that_the_other_file_lacks_is_named():
    files = (a_file({name: {"weight": [1.0], "mu": [[0.0], [0.0]]}}) for name in ("conv2", "conv1"))
    with pytest.raises(CheckpointError, match="no DAU layer 'conv2'; did you mean 'conv1'"):
        displacement_changes(*files)


def test_nan_in_the_other_file_is_refused():
    with pytest.raises(CheckpointError, match="mu are NaN"):
        follow([1.0], [[math.nan], [0.0]], [[0.0], [0.0]])


def test_the_table_holds_every_number_of_the_figure():
    layer = follow(*random_moves(50), shares=[1, 0.5], bins=8)
    rows = list(csv.DictReader(io.StringIO(changes_to_csv([layer]))))
    assert tuple(rows[0]) == CHANGE_COLUMNS
    for distribution in layer.distributions:
        own = [row for row in rows if row["share"] == str(distribution.weight_filter.share)]
        numbers = [float(row["density"]) for row in own]
        np.testing.assert_array_equal(numbers, [*distribution.density, *distribution.density_2d.ravel()])
    arrows, flow = [row for row in rows if row["kind"] == "flow"], layer.flow
    filled = flow.density > 0
    np.testing.assert_array_equal([float(row["density"]) for row in arrows], flow.density[filled])
    for column, values in (("before_y", flow.before[0]), ("before_x", flow.before[1]), ("after_x", flow.after[1])):
        np.testing.assert_array_equal([float(row[column]) for row in arrows], values[filled])
