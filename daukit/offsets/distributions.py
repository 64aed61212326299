"""Distributions of the displacements of a network's units (paper, section 4.3). Needs no model class.

Every unit counts by ``|w|``, the size of its weight. Displacements are ``dilation * mu``: pixels of the layer's input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daukit.checkpoint import Checkpoint, takes_any
from daukit.offsets.filters import KEEP, FilterRule, WeightFilter, weight_filters
from daukit.offsets.histograms import BINS, Array, Bins, Part, bin_of, mean, quantiles
from daukit.offsets.spikes import Spike, find_spikes
from daukit.offsets.units import NEAR, Group, Units, choose_groups, half_width, read_units


@dataclass(frozen=True)
class Distribution:
    """The displacements of the units that one filter keeps.

    Attributes:
        weight_filter: the filter.
        units: how many it keeps.
        mean_distance: mean distance to the centre in pixels, weighted by ``|w|``; None where all kept weights are zero.
        density: (distance bins,), per pixel; its integral is 1, or 0 where all kept weights are zero.
        density_2d: (bins, bins), rows y and columns x, per square pixel; its integral likewise.
        spikes: where ``density`` stands out, nearest first.
    """

    weight_filter: WeightFilter
    units: int
    mean_distance: float | None
    density: Array
    density_2d: Array
    spikes: tuple[Spike, ...] = ()

    @property
    def label(self) -> str:
        """The filter in words."""
        return self.weight_filter.label


@dataclass(frozen=True)
class LayerDistributions:
    """The displacements of one layer, or of a group of layers, in pixels of the layers' inputs.

    Attributes:
        name: the layer's name, or the group's.
        layers: names of the layers whose units these are.
        units: how many there are.
        mean_distance: mean distance to the centre over all units, weighted by ``|w|``; None where all weights are zero.
        quantiles: {share: the least distance within which that share of the sum of ``|w|`` lies}; None likewise.
        limit: largest displacement (y, x) that training allowed, on each axis by itself; None: no limit.
        points: (2, points), where grid initialisation put the units (y, x); None for the other initialisers.
        at_points: units that have not moved from a point; None where there are no points.
        at_limit: units at the limit along (y, x); None where there is no limit.
        pixels: (2, pixels), the pixels (y, x) at which the units of layers of whole pixels read, each once; None where
            no layer is one.
        pixel_shares: (pixels,), the share of the sum of ``|w|`` that is read at each of them; None likewise.
        rounding: mean distance between a displacement and the pixel it reads at, weighted by ``|w|``; None likewise.
        bin_width: width of a bin of any axis.
        distance_edges: (distance bins + 1,).
        edges: (bins + 1,), of both axes of the square that holds the limit and every unit.
        distributions: one per weight filter.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    mean_distance: float | None
    quantiles: dict[float, float] | None
    limit: tuple[float, float] | None
    points: Array | None
    at_points: Part | None
    at_limit: tuple[Part, Part] | None
    pixels: Array | None
    pixel_shares: Array | None
    rounding: float | None
    bin_width: float
    distance_edges: Array
    edges: Array
    distributions: tuple[Distribution, ...]

    @property
    def limit_distances(self) -> tuple[float, float] | None:
        """The least and the largest Euclidean distance of a unit at the limit, which is one per axis: a box.

        The least is in the middle of the box's nearest edge, the largest in its corners, in pixels; None: no limit.
        """
        return None if self.limit is None else (min(self.limit), math.hypot(*self.limit))


@takes_any
def displacement_distributions(
    checkpoint: Checkpoint,
    layers: Sequence[str] | None = None,
    *,
    rule: FilterRule = "keep-top",
    shares: Sequence[float] = KEEP,
    bins: int = BINS,
    near: float = NEAR,
    group: Group = "layer",
    stages: Sequence[str] = (),
) -> list[LayerDistributions]:
    """Measure the distribution of displacements per layer and weight filter: the numbers behind Fig. 6 and 7.

    Args:
        checkpoint: any daukit file, dense or pruned, read or by its path; or a model.
        layers: names of layers; default: every DAU layer.
        rule: of the weight filters; see ``WeightFilter``.
        shares: one weight filter each.
        bins: cells across the square ``[-limit, limit]^2`` of a layer.
        near: a unit within this distance of an initialisation point, in pixels, has not moved.
        group: what to measure together: a ``"layer"``, a ``"stage"`` or the ``"network"``; see ``choose_groups``.
        stages: beginnings of layers' names, each a stage; they take the place of ``group``.

    Raises:
        ValueError: an option outside its range.
        CheckpointError: the network has no DAU layer, or none of that name, or a layer is damaged or holds NaN.
    """
    filters = weight_filters(rule, shares, bins)
    groups = choose_groups(checkpoint, layers, group, stages)
    return [_distributions(read_units(checkpoint, *item, near), filters, bins) for item in groups.items()]


def distributions_of(
    displacement: Array, weight: Array, square: Bins, filters: Sequence[WeightFilter], units: Units | None = None
) -> tuple[Distribution, ...]:
    """Histograms of ``displacement`` (2, units) over ``square``, one per filter; with spikes if ``units`` are given."""
    distance, size = np.hypot(*displacement), len(square.edges) - 1
    radius = bin_of(distance, square.distance_edges)
    cell = bin_of(displacement[0], square.edges) * size + bin_of(displacement[1], square.edges)
    ascending = np.sort(weight)
    distributions = []
    for weight_filter in filters:
        keep = weight >= weight_filter.threshold(ascending)
        kept, radius_kept = weight[keep], radius[keep]
        mass = np.bincount(radius_kept, kept, len(square.distance_edges) - 1).astype(np.float64)
        mass_2d = np.bincount(cell[keep], kept, size * size).reshape(size, size)
        total = float(kept.sum()) or 1.0  # zero mass is zero density
        spikes: tuple[Spike, ...] = ()
        if units is not None and not units.is_settled:  # on whole pixels every distance would be one
            at_limit = (units.at_limit[0] | units.at_limit[1])[keep]
            spikes = find_spikes(mass, radius_kept, kept, square.distance_edges, units.at_points[keep], at_limit)
        distributions.append(
            Distribution(
                weight_filter, kept.size, mean(distance[keep], kept),
                mass / (total * square.width), mass_2d / (total * square.width**2), spikes,
            )
        )  # fmt: skip
    return tuple(distributions)


def _distributions(units: Units, filters: Sequence[WeightFilter], bins: int) -> LayerDistributions:
    distance = np.hypot(*units.displacement)
    square = Bins.of_square(half_width(units.displacement, units.limit), bins)
    pixels, shares, rounding = _pixels(units)
    return LayerDistributions(
        name=units.name,
        layers=units.layers,
        units=units.weight.size,
        mean_distance=mean(distance, units.weight),
        quantiles=quantiles(distance, units.weight),
        limit=units.limit,
        points=units.points,
        at_points=units.part_at_points(),
        at_limit=units.part_at_limit(),
        pixels=pixels,
        pixel_shares=shares,
        rounding=rounding,
        bin_width=square.width,
        distance_edges=square.distance_edges,
        edges=square.edges,
        distributions=distributions_of(units.displacement, units.weight, square, filters, units),
    )


def _pixels(units: Units) -> tuple[Array | None, Array | None, float | None]:
    """Fields of ``LayerDistributions``: the pixels that are read, their shares, and the mean rounding."""
    if not units.is_rounded.any():
        return None, None, None
    displacement, pixel = units.displacement[:, units.is_rounded], units.pixel[:, units.is_rounded]
    weight = units.weight[units.is_rounded]
    pixels, which = np.unique(pixel, axis=1, return_inverse=True)
    total = float(units.weight.sum()) or 1.0
    shares = np.bincount(which.reshape(-1), weight, pixels.shape[1]) / total
    return pixels, shares, mean(np.hypot(*(displacement - pixel)), weight)
