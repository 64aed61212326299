"""The numbers of layers, or of groups of layers, without the curves: what ``daukit plot-offsets`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from daukit.offsets.changes import LayerChanges
from daukit.offsets.distributions import Distribution, LayerDistributions
from daukit.offsets.histograms import Part
from daukit.offsets.sigmas import LayerSigmas, ValueDistribution, Values
from daukit.offsets.spikes import Spike
from daukit.results import Count, Positive, Share, result_of

Quantile = Literal["0.25", "0.5", "0.75", "0.9"]
"""``QUANTILES`` as keys in JSON."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Largest displacement that training allowed, in pixels of the layer's input.

    Attributes:
        y: along y.
        x: along x.
    """

    y: Positive
    x: Positive


@dataclass(frozen=True, kw_only=True)
class AtLimit:
    """Units at the limit.

    Attributes:
        y: along y.
        x: along x.
    """

    y: Part
    x: Part


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Mean change of the displacements, weighted by |w|, in pixels.

    Attributes:
        y: along y.
        x: along x.
    """

    y: float
    x: float


@dataclass(frozen=True, kw_only=True)
class FilteredMoves:
    """Moves of the units that one weight filter keeps.

    Attributes:
        share: share that the filter keeps, of the units or of the largest |w|.
        label: the filter in words, as in the figure.
        units: units it keeps.
        mean_distance: mean distance in pixels, weighted by |w|; null where all kept weights are zero.
    """

    share: Share
    label: str
    units: Count
    mean_distance: Positive | None


@dataclass(frozen=True, kw_only=True)
class FilteredDisplacements(FilteredMoves):
    """Displacements of the units that one weight filter keeps.

    Attributes:
        spikes: where the density of the distances stands out, nearest first.
    """

    spikes: tuple[Spike, ...]


@dataclass(frozen=True, kw_only=True)
class FilteredValues:
    """Values of the units that one weight filter keeps.

    Attributes:
        share: share that the filter keeps, of the units or of the largest |w|.
        label: the filter in words, as in the figure.
        units: units it keeps.
        mean: mean value, weighted by |w|; null where all kept weights are zero.
    """

    share: Share
    label: str
    units: Count
    mean: float | None


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Units that are measured together.

    Attributes:
        name: name of the layer, of the stage, or "network".
        layers: names of the layers whose units these are.
        units: number of units.
    """

    name: str
    layers: tuple[str, ...]
    units: Count


@dataclass(frozen=True, kw_only=True)
class DisplacementSummary(_Group):
    """Displacements of a layer, or of a group of layers.

    Attributes:
        mean_distance: mean distance to the centre in pixels, weighted by |w|; null where all weights are zero.
        quantiles: distances in pixels within which these shares of the sum of |w| lie; null likewise.
        limit: limit of the displacements on each axis by itself; null without one.
        limit_distances: least and largest Euclidean distance of units at the limit, to the middle of an edge and to a
            corner of its box; null without one.
        at_limit: units at the limit; null without one.
        initialization_points: the points (y, x) that the units of filters start from; null for random starts.
        at_initialization: units that are within `near` of such a point; null likewise.
        bin_width: width of a bin of the densities, in pixels.
        filters: the units by weight filter.
        pixels_read: number of whole pixels at which units read; null where no layer reads at whole pixels.
        rounding: mean distance between a displacement and the pixel that it reads at, weighted by |w|; null likewise,
            and where all weights are zero.
    """

    mean_distance: Positive | None
    quantiles: dict[Quantile, Positive] | None
    limit: Limit | None
    limit_distances: tuple[Positive, Positive] | None
    at_limit: AtLimit | None
    initialization_points: tuple[tuple[float, float], ...] | None
    at_initialization: Part | None
    bin_width: Positive
    filters: tuple[FilteredDisplacements, ...]
    pixels_read: Count | None = None
    rounding: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class ChangeSummary(_Group):
    """Moves of the units of a layer, or of a group of layers, between two checkpoints.

    Attributes:
        mean_distance: mean distance moved in pixels, weighted by |w|; null where all weights are zero.
        quantiles: distances in pixels that these shares of the sum of |w| moved at most; null likewise.
        mean_change: mean change, the drift of the whole; null likewise.
        unmoved: units that moved by at most `near`.
        limit: limit of the displacements on each axis by itself; null without one.
        bin_width: width of a bin of the densities, in pixels.
        filters: the units by weight filter.
    """

    mean_distance: Positive | None
    quantiles: dict[Quantile, Positive] | None
    mean_change: Drift | None
    unmoved: Part
    limit: Limit | None
    bin_width: Positive
    filters: tuple[FilteredMoves, ...]


@dataclass(frozen=True, kw_only=True)
class ValueSummary:
    """Sigmas, or their changes, in dilated pixels.

    Attributes:
        mean: mean, weighted by |w|; null where all weights are zero.
        quantiles: values up to which these shares of the sum of |w| lie; null likewise.
        low: least value; null without units.
        high: greatest value; null without units.
        bin_width: width of a bin of the histogram.
        filters: the units by weight filter.
    """

    mean: float | None
    quantiles: dict[Quantile, float] | None
    low: float | None
    high: float | None
    bin_width: Positive
    filters: tuple[FilteredValues, ...]


@dataclass(frozen=True, kw_only=True)
class SigmaSummary(_Group):
    """Sigmas of the units of a layer, or of a group of layers.

    Attributes:
        per_unit: true where a layer has a sigma per unit, false where each has one for all of its units.
        sigma: the sigmas.
        before: the sigmas in the earlier checkpoint; null without one.
        change: change since the earlier checkpoint; null without one.
    """

    per_unit: bool
    sigma: ValueSummary
    before: ValueSummary | None
    change: ValueSummary | None


Filtered = TypeVar("Filtered", FilteredDisplacements, FilteredMoves, FilteredValues)


def summarize_displacements(layer: LayerDistributions) -> DisplacementSummary:
    """The numbers of one layer, or group of layers."""
    return result_of(
        DisplacementSummary,
        layer,
        quantiles=_named(layer.quantiles),
        limit=_limit(layer.limit),
        at_limit=None if layer.at_limit is None else AtLimit(y=layer.at_limit[0], x=layer.at_limit[1]),
        initialization_points=None if layer.points is None else tuple((float(y), float(x)) for y, x in layer.points.T),
        at_initialization=layer.at_points,
        filters=_filtered(FilteredDisplacements, layer.distributions),
        pixels_read=None if layer.pixels is None else layer.pixels.shape[1],
    )


def summarize_changes(layer: LayerChanges) -> ChangeSummary:
    """The numbers of the moves of one layer, or group of layers."""
    return result_of(
        ChangeSummary,
        layer,
        quantiles=_named(layer.quantiles),
        mean_change=None if layer.mean_change is None else Drift(y=layer.mean_change[0], x=layer.mean_change[1]),
        limit=_limit(layer.limit),
        filters=_filtered(FilteredMoves, layer.distributions),
    )


def summarize_sigmas(layer: LayerSigmas) -> SigmaSummary:
    """The numbers of the sigmas of one layer, or group of layers."""
    return result_of(
        SigmaSummary,
        layer,
        sigma=_values(layer.now),
        before=None if layer.before is None else _values(layer.before),
        change=None if layer.change is None else _values(layer.change),
    )


def _values(values: Values) -> ValueSummary:
    return result_of(
        ValueSummary,
        values,
        quantiles=_named(values.quantiles),
        bin_width=float(values.edges[1] - values.edges[0]),
        filters=_filtered(FilteredValues, values.distributions),
    )


def _filtered(kind: type[Filtered], kept: Iterable[Distribution | ValueDistribution]) -> tuple[Filtered, ...]:
    return tuple(result_of(kind, one, share=one.weight_filter.share) for one in kept)


def _named(quantiles: dict[float, float] | None) -> dict[Quantile, float] | None:
    return None if quantiles is None else dict(zip(get_args(Quantile), quantiles.values(), strict=True))


def _limit(limit: tuple[float, float] | None) -> Limit | None:
    return None if limit is None else Limit(y=limit[0], x=limit[1])
