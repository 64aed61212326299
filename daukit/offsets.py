"""Where a network's units sit: distributions of their displacements (paper, section 4.3). Needs no model class.

Every unit counts by ``|w|``, the size of its weight. Displacements are ``dilation * mu``: pixels of the layer's input.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from daukit.checkpoint import Checkpoint, LayerUnits
from daukit.errors import CheckpointError
from daukit.nn import grid_points

Array = NDArray[np.float64]
Rule = Literal["keep-top", "keep-rel"]
Kind = Literal["1d", "2d"]

KEEP = (1.0, 0.9, 0.75)
"""The shares of the paper's Fig. 6 and 7."""

QUANTILES = (0.25, 0.5, 0.75, 0.9)

BINS = 79
"""Cells across a layer's square. Odd: the filter's centre is the centre of a cell. Prime: the points of an initial grid
do not fall on the edges between cells, where rounding would scatter a spike."""

NEAR = 0.1
"""A unit this close to an initialisation point, in pixels, counts as one that has not moved."""

CSV_COLUMNS = ("layer", "weight_filter", "share", "kind", "distance", "y", "x", "bin_width", "density")


@dataclass(frozen=True)
class WeightFilter:
    """Which units of a layer a distribution counts.

    Attributes:
        rule: ``"keep-top"``, the ``share`` of the layer's units with the largest ``|w|`` (the paper's figure captions),
            or ``"keep-rel"``, the units with ``|w| >= share * largest |w|`` (its text).
        share: above 0 for ``keep-top``, at least 0 for ``keep-rel``; at most 1.
    """

    rule: Rule
    share: float

    def __post_init__(self) -> None:
        if self.rule not in ("keep-top", "keep-rel"):
            raise ValueError(f'rule must be "keep-top" or "keep-rel", got {self.rule!r}')
        if not 0 <= self.share <= 1 or (self.rule == "keep-top" and self.share == 0):
            allowed = "above 0 and at most 1" if self.rule == "keep-top" else "within [0, 1]"
            raise ValueError(f"the share of {self.rule} must be {allowed}, got {self.share}")

    @property
    def label(self) -> str:
        """The filter in words, for legends and titles."""
        if self.share == (1 if self.rule == "keep-top" else 0):
            return "all units"
        return f"top {100 * self.share:g}% by |w|" if self.rule == "keep-top" else f"|w| ≥ {self.share:g} max |w|"

    def threshold(self, ascending: Array) -> float:
        """The least ``|w|`` to keep, given a layer's ``|w|`` in ascending order: (units,).

        ``keep-top`` keeps ``ceil(share * units)`` units, and with the last of them every unit of the same ``|w|``.
        """
        if not ascending.size:
            return 0.0
        if self.rule == "keep-rel":
            return self.share * float(ascending[-1])
        # The share as the decimal that was written: 0.07 of 100 units are 7, not ceil(7.000000000000001) = 8.
        count = math.ceil(Fraction(str(self.share)) * ascending.size)
        return float(ascending[ascending.size - count])


@dataclass(frozen=True)
class Share:
    """A part of a layer: of its units, and of the sum of their ``|w|`` (None where that sum is zero)."""

    units: float
    weight: float | None


@dataclass(frozen=True)
class Distribution:
    """The displacements of the units that one filter keeps.

    Attributes:
        weight_filter: the filter.
        units: how many it keeps.
        mean_distance: mean distance to the centre in pixels, weighted by ``|w|``; None where all kept weights are zero.
        density: (distance bins,), per pixel; its integral is 1, or 0 where all kept weights are zero.
        density_2d: (bins, bins), rows y and columns x, per square pixel; its integral likewise.
    """

    weight_filter: WeightFilter
    units: int
    mean_distance: float | None
    density: Array
    density_2d: Array

    @property
    def label(self) -> str:
        """The filter in words."""
        return self.weight_filter.label


@dataclass(frozen=True)
class LayerDistributions:
    """The displacements of one layer, in pixels of its input.

    Attributes:
        name: the layer's name.
        units: how many it has.
        mean_distance: mean distance to the centre over all units, weighted by ``|w|``; None where all weights are zero.
        quantiles: {share: the least distance within which that share of the sum of ``|w|`` lies}; None likewise.
        limit: largest displacement (y, x) that training allowed; None: no limit.
        points: (2, points), where grid initialisation put the units (y, x); None for the other initialisers.
        at_points: units that have not moved from a point; None where there are no points.
        at_limit: units at the limit along (y, x); None where there is no limit.
        bin_width: width of a bin of any axis.
        distance_edges: (distance bins + 1,).
        edges: (bins + 1,), of both axes of the square that holds the limit and every unit.
        distributions: one per weight filter.
    """

    name: str
    units: int
    mean_distance: float | None
    quantiles: dict[float, float] | None
    limit: tuple[float, float] | None
    points: Array | None
    at_points: Share | None
    at_limit: tuple[Share, Share] | None
    bin_width: float
    distance_edges: Array
    edges: Array
    distributions: tuple[Distribution, ...]


def displacement_distributions(
    checkpoint: Checkpoint,
    layers: Sequence[str] | None = None,
    *,
    rule: Rule = "keep-top",
    shares: Sequence[float] = KEEP,
    bins: int = BINS,
    near: float = NEAR,
) -> list[LayerDistributions]:
    """How displacements are distributed, per layer and weight filter: the numbers behind the paper's Fig. 6 and 7.

    Args:
        checkpoint: any daukit file, dense or pruned.
        layers: names of layers; default: every DAU layer.
        rule: of the weight filters; see ``WeightFilter``.
        shares: one weight filter each.
        bins: cells across the square ``[-limit, limit]^2`` of a layer.
        near: a unit within this distance of an initialisation point, in pixels, has not moved.

    Raises:
        ValueError: an option outside its range.
        CheckpointError: the network has no DAU layer, or none of that name, or a layer is damaged or holds NaN.
    """
    filters = [WeightFilter(rule, share) for share in shares]
    if bins < 1 or not near >= 0:
        raise ValueError(f"bins must be at least 1 and near at least 0, got {bins} and {near}")
    if not checkpoint.layer_names:
        raise CheckpointError(f"{checkpoint.path}: it has no DAU layer, so there are no displacements to plot")
    names = checkpoint.layer_names if layers is None else layers
    return [_layer_distributions(checkpoint.layer(name), filters, bins, near) for name in names]


def to_csv(layers: Sequence[LayerDistributions], kinds: Sequence[Kind] = ("1d", "2d")) -> str:
    """The curves as a table: one line per bin, at its centre, with the columns ``CSV_COLUMNS``.

    A distribution whose kept weights are all zero has no lines.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for layer in layers:
        distance, centre = (((e[:-1] + e[1:]) / 2).tolist() for e in (layer.distance_edges, layer.edges))
        for distribution in layer.distributions:
            if distribution.mean_distance is None:
                continue
            start = (layer.name, distribution.weight_filter.rule, distribution.weight_filter.share)
            if "1d" in kinds:
                for d, value in zip(distance, distribution.density.tolist(), strict=True):
                    writer.writerow((*start, "1d", d, "", "", layer.bin_width, value))
            if "2d" in kinds:
                for y, row in zip(centre, distribution.density_2d.tolist(), strict=True):
                    for x, value in zip(centre, row, strict=True):
                        writer.writerow((*start, "2d", "", y, x, layer.bin_width, value))
    return text.getvalue()


def _layer_distributions(
    layer: LayerUnits, filters: Sequence[WeightFilter], bins: int, near: float
) -> LayerDistributions:
    dilation = np.array(layer.description["dilation"], dtype=np.float64)
    displacement = dilation[:, None] * layer.mu.double().numpy()  # (2, units), input pixels
    distance, weight = np.hypot(*displacement), layer.weight.double().abs().numpy()  # (units,)
    limit, points = _limit(layer, dilation), _initialization_points(layer, dilation)
    half = _half_width(displacement, limit)
    width, distance_bins = 2 * half / bins, math.ceil(bins / math.sqrt(2))
    edges, distance_edges = np.linspace(-half, half, bins + 1), np.linspace(0, width * distance_bins, distance_bins + 1)
    radius = _bin_of(distance, distance_edges)
    cell = _bin_of(displacement[0], edges) * bins + _bin_of(displacement[1], edges)
    ascending = np.sort(weight)
    distributions = []
    for weight_filter in filters:
        keep = weight >= weight_filter.threshold(ascending)
        kept = weight[keep]
        total = float(kept.sum()) or 1.0  # zero mass is zero density
        density = np.bincount(radius[keep], kept, distance_bins) / (total * width)
        density_2d = np.bincount(cell[keep], kept, bins * bins).reshape(bins, bins) / (total * width**2)
        distributions.append(Distribution(weight_filter, kept.size, _mean(distance[keep], kept), density, density_2d))
    return LayerDistributions(
        name=layer.name,
        units=weight.size,
        mean_distance=_mean(distance, weight),
        quantiles=_quantiles(distance, weight),
        limit=limit,
        points=points,
        at_points=None if points is None else _share(_distance_to(points, displacement) <= near, weight),
        at_limit=_at_limit(layer, weight),
        bin_width=width,
        distance_edges=distance_edges,
        edges=edges,
        distributions=tuple(distributions),
    )


def _limit(layer: LayerUnits, dilation: Array) -> tuple[float, float] | None:
    limit = layer.description["max_displacement"]
    return None if limit is None else (limit * float(dilation[0]), limit * float(dilation[1]))


def _initialization_points(layer: LayerUnits, dilation: Array) -> Array | None:
    options = dict(layer.description["initialization"])
    if options.pop("name") != "grid":
        return None
    points: Array = dilation[:, None] * grid_points(**options).double().numpy()
    return points


def _half_width(displacement: Array, limit: tuple[float, float] | None) -> float:
    """Half the side of the square to bin: the limit; whole pixels where there is none, or where units lie beyond it."""
    farthest = float(np.abs(displacement).max(initial=0.0))
    half = max(limit or (0.0,))
    # Displacements are float32: at a limit like 3.99 they lie a rounding beyond it.
    return half if half > 0 and farthest <= half * (1 + 1e-6) else max(1.0, float(math.ceil(farthest)))


def _bin_of(values: Array, edges: Array) -> NDArray[np.int64]:
    """The bin ``[edges[i], edges[i + 1])`` of every value; the last one holds its right edge too."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _mean(distance: Array, weight: Array) -> float | None:
    total = float(weight.sum())
    return float((distance * weight).sum()) / total if total else None


def _quantiles(distance: Array, weight: Array) -> dict[float, float] | None:
    order = np.argsort(distance)
    mass = np.cumsum(weight[order])
    if not mass.size or not mass[-1]:
        return None
    return {q: float(distance[order[np.searchsorted(mass, q * mass[-1])]]) for q in QUANTILES}


def _distance_to(points: Array, displacement: Array) -> Array:
    """Distance of every unit to the nearest of ``points``: (units,)."""
    nearest = np.full(displacement.shape[1], np.inf)
    for y, x in points.T:
        np.minimum(nearest, np.hypot(displacement[0] - y, displacement[1] - x), out=nearest)
    return nearest


def _at_limit(layer: LayerUnits, weight: Array) -> tuple[Share, Share] | None:
    limit = layer.description["max_displacement"]
    if limit is None:
        return None
    # torch compares in mu's own precision, in which displacements were projected: 3.3 is a smaller number in float32.
    reached = (layer.mu.abs() >= limit).numpy()  # (2, units)
    return _share(reached[0], weight), _share(reached[1], weight)


def _share(chosen: NDArray[np.bool_], weight: Array) -> Share:
    total = float(weight.sum())
    return Share(float(chosen.mean()) if chosen.size else 0.0, float(weight[chosen].sum()) / total if total else None)
