"""Moves of a network's units from one checkpoint to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daukit.checkpoint import Checkpoint, Given, taken, takes_any
from daukit.offsets.distributions import Distribution, distributions_of
from daukit.offsets.filters import KEEP, FilterRule, WeightFilter, weight_filters
from daukit.offsets.histograms import BINS, Array, Bins, Part, bin_of, mean, part_of, quantiles, round_up
from daukit.offsets.units import (
    NEAR,
    Group,
    choose_groups,
    half_width,
    input_displacement,
    matching_layer,
    read_units,
)

FLOW_BINS = 13
"""Cells across a layer's square for the arrows: as many as a panel of a page can show. Odd and prime as ``BINS``."""


@dataclass(frozen=True)
class Flow:
    """Former places of the units in every cell, in pixels; cells by where the units are now.

    Attributes:
        edges: (cells + 1,), of both axes.
        density: (cells, cells), rows y and columns x, ``|w|`` per square pixel; its integral is 1, or 0.
        before: (2, cells, cells), mean displacement (y, x) before, weighted by ``|w|``; NaN in cells without weight.
        after: (2, cells, cells), now.
    """

    edges: Array
    density: Array
    before: Array
    after: Array


@dataclass(frozen=True)
class LayerChanges:
    """Moves of the units of one layer, or of a group of layers, in pixels of the layers' inputs.

    Attributes:
        name: the layer's name, or the group's.
        layers: names of the layers whose units these are.
        units: how many there are.
        mean_distance: mean distance moved over all units, weighted by ``|w|`` after; None where all weights are zero.
        quantiles: {share: the least distance that so much of the sum of ``|w|`` did not exceed}; None likewise.
        mean_change: mean change (y, x), weighted likewise: the drift of the whole; None likewise.
        unmoved: units that moved by ``near`` pixels at most.
        limit: largest displacement (y, x) that training allowed; None: no limit.
        bin_width: width of a bin of any axis.
        distance_edges: (distance bins + 1,), of the distances moved.
        edges: (bins + 1,), of both axes of the changes.
        distributions: of the changes, one per weight filter.
        flow: where the units of every place came from.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    mean_distance: float | None
    quantiles: dict[float, float] | None
    mean_change: tuple[float, float] | None
    unmoved: Part
    limit: tuple[float, float] | None
    bin_width: float
    distance_edges: Array
    edges: Array
    distributions: tuple[Distribution, ...]
    flow: Flow


@takes_any
def displacement_changes(
    after: Checkpoint,
    before: Given,
    layers: Sequence[str] | None = None,
    *,
    rule: FilterRule = "keep-top",
    shares: Sequence[float] = KEEP,
    bins: int = BINS,
    near: float = NEAR,
    group: Group = "layer",
    stages: Sequence[str] = (),
) -> list[LayerChanges]:
    """Measure how displacements changed from ``before`` to ``after``; units count by their ``|w|`` after.

    Args:
        after: the checkpoint whose layers, weights and limits are meant, a path or a model likewise.
        before: one with the same units, for example of the same network before training.
        layers: names of layers; default: every DAU layer of ``after``.
        rule: of the weight filters; see ``WeightFilter``.
        shares: one weight filter each.
        bins: cells across the square of the changes.
        near: a unit that moved by no more than this, in pixels, has not moved.
        group: as in ``displacement_distributions``.
        stages: as in ``displacement_distributions``.

    Raises:
        ValueError: an option outside its range.
        CheckpointError: a layer is missing in a file, damaged or holds NaN, or has other units in ``before``.
    """
    filters = weight_filters(rule, shares, bins)
    groups = choose_groups(after, layers, group, stages)
    with taken(before, "displacement_changes") as start:
        return [_changes(after, start, *item, filters, bins, near) for item in groups.items()]


def _changes(
    after: Checkpoint,
    before: Checkpoint,
    name: str,
    layers: Sequence[str],
    filters: Sequence[WeightFilter],
    bins: int,
    near: float,
) -> LayerChanges:
    units = read_units(after, name, layers, near)
    start = np.concatenate([input_displacement(matching_layer(after, before, layer)[1]) for layer in layers], 1)
    change, weight = units.displacement - start, units.weight
    distance = np.hypot(*change)
    square = Bins.of_square(round_up(float(np.abs(change).max(initial=0.0))), bins)
    mean_y, mean_x = (mean(component, weight) for component in change)
    return LayerChanges(
        name=name,
        layers=units.layers,
        units=weight.size,
        mean_distance=mean(distance, weight),
        quantiles=quantiles(distance, weight),
        mean_change=None if mean_y is None or mean_x is None else (mean_y, mean_x),
        unmoved=part_of(distance <= near, weight),
        limit=units.limit,
        bin_width=square.width,
        distance_edges=square.distance_edges,
        edges=square.edges,
        distributions=distributions_of(change, weight, square, filters),
        flow=_flow(start, units.displacement, weight, half_width(units.displacement, units.limit)),
    )


def _flow(before: Array, after: Array, weight: Array, half: float) -> Flow:
    square = Bins.of_square(half, FLOW_BINS)
    cell = bin_of(after[0], square.edges) * FLOW_BINS + bin_of(after[1], square.edges)
    mass = np.bincount(cell, weight, FLOW_BINS**2)
    with np.errstate(invalid="ignore"):  # nothing by nothing is the NaN of an empty cell
        means = [
            np.stack([np.bincount(cell, weight * axis, FLOW_BINS**2) / mass for axis in displacement])
            for displacement in (before, after)
        ]
    density = mass / ((float(mass.sum()) or 1.0) * square.width**2)
    shape = (FLOW_BINS, FLOW_BINS)
    return Flow(square.edges, density.reshape(shape), *(values.reshape(2, *shape) for values in means))
