"""Layers measured together: which, and that the group is the union of its units."""

import time

import numpy as np
import pytest
import torch
from planted import a_file

from daukit.errors import CheckpointError
from daukit.offsets import displacement_distributions
from daukit.offsets.units import _distance_to

EPS = np.finfo(np.float64).eps
GRID = {"name": "grid", "rows": 1, "columns": 1, "extent": 3.0}


def named(*names):
    return a_file({name: {"weight": [1.0], "mu": [[0.0], [1.0]]} for name in names})


def groups(names, **options):
    return {group.name: list(group.layers) for group in displacement_distributions(named(*names), **options)}


def test_stages_are_what_names_begin_with_before_their_first_number():
    names = ["conv1", "stage1.0.conv2", "stage1.1.conv2", "stage10.0.conv2", "body.stage1.0.conv2", "aspp.0", "4.conv"]
    assert groups([*names, "features.last"], group="stage") == {
        "conv1": ["conv1"],
        "stage1": ["stage1.0.conv2", "stage1.1.conv2"],
        "stage10": ["stage10.0.conv2"],
        "body.stage1": ["body.stage1.0.conv2"],
        "aspp": ["aspp.0"],
        "4": ["4.conv"],
        "features": ["features.last"],
    }


def test_named_stages_are_whole_parts_of_names_in_the_order_given_and_the_rest_is_left_out():
    names = ["a.stage1.0", "a.stage1.1", "a.stage10.0", "b.0", "c"]
    assert groups(names, stages=["b", "a.stage1"]) == {"b": ["b.0"], "a.stage1": ["a.stage1.0", "a.stage1.1"]}
    assert groups(names, stages=["a", "c"]) == {"a": names[:3], "c": ["c"]}


def test_the_network_is_all_layers_or_those_chosen():
    assert groups(["a", "b", "c"], group="network") == {"network": ["a", "b", "c"]}
    assert groups(["a", "b", "c"], layers=["a", "c"], group="network") == {"network": ["a", "c"]}


def test_a_group_has_numpys_histogram_of_all_its_units():
    torch.manual_seed(0)
    parts = {f"s.{i}": {"weight": torch.randn(n), "mu": 3 * torch.rand(2, n)} for i, n in enumerate((300, 50, 7))}
    (group,) = displacement_distributions(a_file(parts), group="stage", shares=[1, 0.5])
    weight = np.concatenate([part["weight"].abs().double() for part in parts.values()])
    y, x = np.concatenate([part["mu"].double() for part in parts.values()], 1)
    half = np.argsort(-weight)[: len(weight) // 2 + 1]  # 178.5 units, rounded up
    for distribution, keep in zip(group.distributions, (slice(None), half), strict=True):
        expected, _, _ = np.histogram2d(y[keep], x[keep], [group.edges] * 2, weights=weight[keep], density=True)
        np.testing.assert_allclose(distribution.density_2d, expected, rtol=2 * len(weight) * EPS)
    assert group.units == 357


def test_shares_are_of_the_units_that_have_points_and_of_those_that_have_a_limit():
    at, away, edge = [[0.0], [0.0]], [[1.0], [1.0]], [[2.0], [8.0]]
    file = a_file({
        "n.0": {"weight": [1.0, 3.0], "mu": np.hstack([at, away]), "initialization": GRID, "max_displacement": None},
        "n.1": {"weight": [6.0, 2.0], "mu": np.hstack([at, edge]), "max_displacement": 8.0},
        "n.2": {"weight": [4.0], "mu": edge, "dilation": [1, 2], "max_displacement": 8.0},
    })  # fmt: skip
    (group,) = displacement_distributions(file, group="network")
    assert (group.at_points.units, group.at_points.weight) == (0.5, 0.25)  # of layer 0
    y, x = group.at_limit  # of layers 1 and 2
    assert (y.units, x.units, x.weight) == (0.0, 2 / 3, 0.5)
    assert group.limit == (8.0, 16.0)
    assert group.points.tolist() == [[0.0], [0.0]]
    assert group.edges[-1] == 16.0


def test_points_of_several_layers_are_drawn_once():
    grid = {"name": "grid", "rows": 1, "columns": 2, "extent": 3.0}
    layer = {"weight": [1.0], "mu": [[0.0], [0.0]], "initialization": grid}
    file = a_file({"a": layer, "b": layer, "c": {**layer, "dilation": [2, 2]}})
    (group,) = displacement_distributions(file, group="network")
    assert sorted(group.points.T.tolist()) == [[0.0, -3.5], [0.0, -1.75], [0.0, 1.75], [0.0, 3.5]]


def test_a_layer_by_itself_is_the_same_alone_in_a_group():
    torch.manual_seed(0)
    file = a_file({"s.0": {"weight": torch.randn(99), "mu": torch.rand(2, 99)}})
    (layer,), (stage,) = (displacement_distributions(file, group=group) for group in ("layer", "stage"))
    assert (layer.name, stage.name) == ("s.0", "s")
    assert (layer.mean_distance, layer.quantiles, layer.at_limit) == (
        stage.mean_distance,
        stage.quantiles,
        stage.at_limit,
    )


def test_a_stage_without_layers_and_an_unknown_group_are_refused():
    with pytest.raises(ValueError, match=r"begins with the stage 'stage'; layers: stage1.0"):
        groups(["stage1.0"], stages=["stage"])
    with pytest.raises(ValueError, match='group must be "layer", "stage" or "network", got \'block\''):
        groups(["stage1.0"], group="block")
    with pytest.raises(CheckpointError, match="no DAU layer 'b'"):
        groups(["a"], layers=["b"], group="network")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (3, 2), (5, 5)])
def test_the_distance_to_a_grid_is_that_to_the_nearest_of_its_points(rows, columns):
    generator = np.random.default_rng(rows * columns)
    y, x = np.sort(generator.normal(size=rows)), np.sort(generator.normal(size=columns))
    points = np.stack([axis.ravel() for axis in np.meshgrid(y, x, indexing="ij")])
    units = np.concatenate([2 * generator.normal(size=(2, 200)), points], axis=1)
    nearest = [min(np.hypot(*(unit - point)) for point in points.T) for unit in units.T]
    assert _distance_to(points, units).tolist() == nearest


def test_a_grid_of_many_points_is_measured_at_once():
    points = np.stack([axis.ravel() for axis in np.meshgrid(*[np.linspace(-4, 4, 300)] * 2, indexing="ij")])
    started = time.perf_counter()
    _distance_to(points, np.zeros((2, 100_000)))
    assert time.perf_counter() - started < 5  # a loop over the points takes a minute
