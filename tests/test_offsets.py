"""Displacement distributions against closed forms, numpy's histograms and examples worked by hand."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from planted import one_layer

import daukit
from daukit.checkpoint import from_model
from daukit.errors import CheckpointError
from daukit.nn import uniform_
from daukit.offsets import CSV_COLUMNS, WeightFilter, displacement_distributions, to_csv
from daukit.pruning import prune

EPS = np.finfo(np.float64).eps


def measure(weight, mu, description=None, **options):
    (layer,) = displacement_distributions(one_layer(weight, mu, **(description or {})), **options)
    return layer


def random_units(units=5000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(units, generator=generator)
    mu = (2.5 * torch.randn(2, units, generator=generator)).clamp(-4, 4)
    return weight.tolist(), mu


def kept(weight, rule, share):
    """Units that one filter keeps of ``weight``."""
    return measure(weight, torch.zeros(2, len(weight)), rule=rule, shares=[share]).distributions[0].units


def test_one_unit_lands_in_the_cell_of_its_row_y_and_column_x():
    layer = measure([-3.0], [[-1.0], [2.5]])
    (distribution, *_) = layer.distributions
    ((row, column),) = np.argwhere(distribution.density_2d)
    assert layer.edges[row] <= -1.0 < layer.edges[row + 1]
    assert layer.edges[column] <= 2.5 < layer.edges[column + 1]
    assert row < len(layer.edges) // 2 < column
    assert distribution.density_2d[row, column] == pytest.approx(1 / layer.bin_width**2, rel=4 * EPS)
    (bin,) = np.flatnonzero(distribution.density)
    assert layer.distance_edges[bin] <= math.hypot(1.0, 2.5) < layer.distance_edges[bin + 1]
    assert layer.mean_distance == pytest.approx(math.hypot(1.0, 2.5), rel=4 * EPS)


def test_a_displacement_on_an_edge_belongs_to_the_cell_above_it():
    layer = measure([1.0], [[1.0], [-3.0]], bins=8)  # edges at whole pixels
    assert np.argwhere(layer.distributions[0].density_2d).tolist() == [[5, 1]]


def test_dilation_turns_displacements_and_limits_into_input_pixels():
    layer = measure([1.0], [[-1.0], [2.5]], {"dilation": [2, 3]})
    ((row, column),) = np.argwhere(layer.distributions[0].density_2d)
    assert layer.limit == (8.0, 12.0)
    assert layer.edges[row] <= -2.0 < layer.edges[row + 1]
    assert layer.edges[column] <= 7.5 < layer.edges[column + 1]
    assert layer.mean_distance == pytest.approx(math.hypot(2.0, 7.5), rel=4 * EPS)


@pytest.mark.parametrize(("rule", "shares"), [("keep-top", [1, 0.9, 0.25]), ("keep-rel", [0, 0.1, 0.6])])
def test_densities_are_numpys_weighted_histograms_of_the_kept_units(rule, shares):
    weight, mu = random_units()
    layer = measure(weight, mu, rule=rule, shares=shares)
    size, (y, x) = np.abs(np.float32(weight)).astype(np.float64), mu.double().numpy()
    order = np.argsort(-size)
    for share, distribution in zip(shares, layer.distributions, strict=True):
        keep = (
            size >= share * size.max() if rule == "keep-rel" else np.isin(np.arange(5000), order[: int(share * 5000)])
        )
        w, distance = size[keep], np.hypot(y[keep], x[keep])
        line, _ = np.histogram(distance, layer.distance_edges, weights=w, density=True)
        square, _, _ = np.histogram2d(y[keep], x[keep], [layer.edges, layer.edges], weights=w, density=True)
        bound = 2 * len(w) * EPS  # a sum of n numbers of one sign is off by less than n eps, on either side
        np.testing.assert_allclose(distribution.density, line, rtol=bound)
        np.testing.assert_allclose(distribution.density_2d, square, rtol=bound)
        assert distribution.density.sum() * layer.bin_width == pytest.approx(1, abs=bound)
        assert distribution.density_2d.sum() * layer.bin_width**2 == pytest.approx(1, abs=bound)
        assert distribution.mean_distance == pytest.approx(np.average(distance, weights=w), rel=bound)
        assert distribution.units == keep.sum()


def test_opposite_displacements_give_the_density_turned_around():
    weight, mu = random_units()
    one, other = (measure(weight, side).distributions[0].density_2d for side in (mu, -mu))
    np.testing.assert_allclose(other[::-1, ::-1], one, rtol=1e4 * EPS)


def test_the_unlearned_uniform_initialisation_has_the_mean_distance_of_a_square():
    torch.manual_seed(0)
    mu, weight = uniform_(torch.empty(2, 40_000)), torch.randn(40_000)
    layer = measure(weight.tolist(), mu)
    expected = 3 * (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
    size, distance = weight.abs().double(), mu.double().norm(dim=0)
    error = float(((size * (distance - expected)) ** 2).sum().sqrt() / size.sum())
    assert abs(layer.mean_distance - expected) < 3 * error


def test_planted_spikes_are_found_where_they_were_planted():
    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(1000, generator=generator)
    spikes = torch.tensor([2.5, 4.0]).repeat(500) * torch.stack([angle.sin(), angle.cos()])
    background = 8 * torch.rand(2, 9000, generator=generator) - 4
    layer = measure([1.0] * 10_000, torch.cat([spikes, background], 1), shares=[1])
    highest = np.sort(np.argsort(layer.distributions[0].density)[-2:])
    found = (layer.distance_edges[highest] + layer.distance_edges[highest + 1]) / 2
    assert np.abs(found - [2.5, 4.0]).max() < layer.bin_width


@pytest.mark.parametrize(
    ("rule", "share", "units"),
    [
        ("keep-top", 1, 5),
        ("keep-top", 0.2, 1),
        ("keep-top", 0.21, 4),  # two units, and the two that tie with the second
        ("keep-top", 0.8, 4),
        ("keep-top", 1e-9, 1),
        ("keep-rel", 0, 5),
        ("keep-rel", 0.5, 4),  # at the threshold is kept
        ("keep-rel", 0.51, 1),
        ("keep-rel", 1, 1),
    ],
)
def test_weight_filters_keep_what_they_say_of_weights_that_tie(rule, share, units):
    assert kept([2.0, -8.0, 4.0, -4.0, 4.0], rule, share) == units


def test_the_two_weight_filters_are_two_definitions():
    weight = [10.0, 9.0, 2.0, 1.0]
    assert kept(weight, "keep-top", 0.75) == 3
    assert kept(weight, "keep-rel", 0.75) == 2


@pytest.mark.parametrize(("share", "units"), [(0.07, 7), (0.29, 29), (0.57, 57), (0.571, 58)])
def test_a_share_of_the_units_is_taken_as_the_decimal_it_was_written_as(share, units):
    assert kept(list(range(1, 101)), "keep-top", share) == units


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.3, 1.0])
def test_keep_rel_draws_the_units_that_pruning_by_the_same_threshold_leaves(threshold):
    checkpoint = one_layer(*random_units())
    pruned, _ = prune(checkpoint, threshold)
    (before,) = displacement_distributions(checkpoint, rule="keep-rel", shares=[threshold])
    (after,) = displacement_distributions(pruned, shares=[1])
    assert after.units == after.distributions[0].units == before.distributions[0].units
    np.testing.assert_array_equal(after.distributions[0].density, before.distributions[0].density)
    np.testing.assert_array_equal(after.distributions[0].density_2d, before.distributions[0].density_2d)


def test_quantiles_and_mean_are_weighted_and_of_all_units_whatever_the_filter():
    # Shares of the weight within 1, 2, 3 and 4 pixels: 0.4, 0.5, 0.9, 1.
    layer = measure([4.0, -1.0, 4.0, -1.0], [[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 3.0, -4.0]], shares=[0.25])
    assert layer.quantiles == {0.25: 1.0, 0.5: 2.0, 0.75: 3.0, 0.9: 3.0}
    assert layer.mean_distance == 2.2
    assert layer.distributions[0].mean_distance == 2.0  # the two of weight 4: they tie


def test_a_layer_of_zero_weights_has_units_but_no_distribution():
    grid = {"name": "grid", "rows": 1, "columns": 1, "extent": 3}
    layer = measure([0.0, 0.0], [[1.0, 4.0], [0.0, 0.0]], {"initialization": grid})
    assert (layer.units, layer.mean_distance, layer.quantiles) == (2, None, None)
    assert [(d.units, d.mean_distance) for d in layer.distributions] == [(2, None)] * 3
    assert not any(d.density.any() or d.density_2d.any() for d in layer.distributions)
    assert (layer.at_limit[0].units, layer.at_limit[0].weight, layer.at_points.weight) == (0.5, None, None)


@pytest.mark.parametrize("rule", ["keep-top", "keep-rel"])
def test_a_layer_that_lost_all_its_units_has_none(rule):
    layer = measure([], torch.zeros(2, 0), rule=rule)
    assert (layer.units, layer.mean_distance, layer.quantiles) == (0, None, None)
    assert [d.units for d in layer.distributions] == [0, 0, 0]
    assert not any(d.density.any() or d.density_2d.any() for d in layer.distributions)
    assert layer.at_limit[0].units == 0


def test_without_a_limit_the_square_reaches_the_farthest_unit():
    layer = measure([1.0, 1.0], [[0.0, -6.2], [0.0, 0.0]], {"max_displacement": None})
    assert (layer.limit, layer.at_limit) == (None, None)
    assert (layer.edges[0], layer.edges[-1]) == (-7.0, 7.0)


def test_units_beyond_their_limit_are_not_left_out():
    layer = measure([1.0, 1.0], [[0.0, 9.5], [0.0, -9.5]])
    assert layer.edges[-1] == 10.0
    assert np.count_nonzero(layer.distributions[0].density_2d) == np.count_nonzero(layer.distributions[0].density) == 2


@pytest.mark.parametrize("limit", [3.99, 3.3])  # float32 rounds the first up and the second down
def test_units_at_a_limit_that_float32_rounds_are_at_it_and_in_the_outer_cells(limit):
    mu = torch.tensor([[limit, -limit, 0.0, 1.0], [0.0, -limit, limit, 1.0]])
    layer = measure([1.0, 2.0, 3.0, 4.0], mu, {"max_displacement": limit})
    assert layer.edges[-1] == limit
    y, x = layer.at_limit
    assert (y.units, y.weight, x.units, x.weight) == (0.5, 0.3, 0.5, 0.5)
    density = layer.distributions[0].density_2d
    assert density[-1].any() and density[:, -1].any() and density[0, 0]


def test_initialisation_points_are_the_scaled_grids_and_unmoved_units_are_counted_there():
    # Two columns within extent 3 lie at -1.75 and 1.75 (docs of the layer); scaled by 2 and dilated by (1, 2).
    grid = {"name": "grid", "rows": 1, "columns": 2, "extent": 3.0, "scale": 2.0}
    description = {"dilation": [1, 2], "max_displacement": 8.0, "initialization": grid}
    mu = torch.tensor([[0.0, 0.05, 0.3, -3.0], [3.5, -3.5, 3.5, 0.0]])
    for near, units, weight in ((0.1, 0.5, 0.3), (0.5, 0.75, 0.6)):
        layer = measure([1.0, 2.0, 3.0, 4.0], mu, description, near=near)
        np.testing.assert_array_equal(layer.points, [[0.0, 0.0], [-7.0, 7.0]])
        assert (layer.at_points.units, layer.at_points.weight) == (units, weight)


def test_the_points_of_diagonals_are_the_corners_of_both():
    diagonals = {"name": "diagonals", "extent": 3.0, "scale": 2.0}
    mu = [[3.5, -3.5, -3.5, 0.0], [3.5, 3.5, -3.0, 0.0]]
    layer = measure([1.0, 2.0, 3.0, 4.0], mu, {"max_displacement": 8.0, "initialization": diagonals})
    np.testing.assert_array_equal(layer.points, [[-3.5, -3.5, 3.5, 3.5], [-3.5, 3.5, -3.5, 3.5]])
    assert layer.at_points.units == 0.5


def test_random_initialisers_have_no_points():
    layer = measure([1.0], [[0.0], [0.0]])
    assert layer.points is None and layer.at_points is None


def test_layers_of_a_real_network_come_in_the_order_asked_for():
    checkpoint = from_model(daukit.create_model("shallow_dau", channels=[2, 2, 4], units=2))
    assert [layer.name for layer in displacement_distributions(checkpoint)] == ["conv1", "conv2", "conv3"]
    (last, first) = displacement_distributions(checkpoint, ["conv3", "conv1"])
    assert (last.name, first.name) == ("conv3", "conv1")
    assert last.at_points.units == 1.0
    assert last.mean_distance == 1.75


def test_a_network_without_dau_layers_is_refused():
    checkpoint = from_model(daukit.create_model("shallow", channels=[2, 2, 4]))
    with pytest.raises(CheckpointError, match="no DAU layer"):
        displacement_distributions(checkpoint)


def test_nan_is_refused():
    with pytest.raises(CheckpointError, match="NaN"):
        measure([math.nan], [[0.0], [0.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "keep-all"}, "keep-all"),
        ({"shares": [0.5, 0.0]}, "above 0 and at most 1, got 0"),
        ({"rule": "keep-rel", "shares": [1.5]}, r"within \[0, 1\], got 1.5"),
        ({"shares": [math.nan]}, "nan"),
        ({"bins": 0}, "bins must be at least 1"),
        ({"bins": 100_000}, "bins must be at least 1 and at most 2000, got 100000"),
        ({"near": math.nan}, "near must be at least 0"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measure([1.0], [[0.0], [0.0]], **options)


def test_the_table_holds_every_number_of_the_curves():
    layer = measure(*random_units(50), shares=[1, 0.5], bins=8)
    rows = list(csv.DictReader(io.StringIO(to_csv([layer]))))
    assert tuple(rows[0]) == CSV_COLUMNS
    for distribution in layer.distributions:
        own = [row for row in rows if float(row["share"]) == distribution.weight_filter.share]
        numbers = [float(row["density"]) for row in own]
        np.testing.assert_array_equal(numbers, [*distribution.density, *distribution.density_2d.ravel()])
    assert {row["kind"] for row in csv.DictReader(io.StringIO(to_csv([layer], ["1d"])))} == {"1d"}


def test_the_centres_in_the_table_are_where_the_units_are_to_half_a_bin():
    weight, mu = random_units(50)
    layer = measure(weight, mu, shares=[1], bins=8)
    rows = list(csv.DictReader(io.StringIO(to_csv([layer]))))
    for column, values, kind, power in (
        ("distance", mu.norm(dim=0), "1d", 1), ("y", mu[0], "2d", 2), ("x", mu[1], "2d", 2)
    ):  # fmt: skip
        lines = [row for row in rows if row["kind"] == kind]
        mean = sum(float(row[column]) * float(row["density"]) * float(row["bin_width"]) ** power for row in lines)
        assert abs(mean - np.average(values.double(), weights=np.abs(weight))) <= layer.bin_width / 2


def test_the_table_has_no_lines_for_a_layer_without_weight():
    assert to_csv([measure([0.0], [[1.0], [0.0]])]).splitlines() == [",".join(CSV_COLUMNS)]


def test_labels_name_the_filter():
    labels = [
        WeightFilter("keep-top", 0.9).label,
        WeightFilter("keep-top", 1).label,
        WeightFilter("keep-rel", 0.9).label,
    ]
    assert labels == ["top 90% by |w|", "all units", "|w| ≥ 0.9 max |w|"]
