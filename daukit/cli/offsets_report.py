"""What ``daukit plot-offsets`` says: the JSON entries and the tables of its three kinds of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from daukit.cli.report import print_table

if TYPE_CHECKING:
    from daukit.offsets import Distribution, LayerChanges, LayerDistributions, LayerSigmas, Share, Spike
    from daukit.offsets.sigmas import Values

_QUANTILES = ("25%", "50%", "75%", "90%")


def displacement_entry(layer: LayerDistributions) -> dict[str, Any]:
    """The JSON object of one layer, or group of layers."""
    return {
        "name": layer.name,
        "layers": list(layer.layers),
        "units": layer.units,
        "mean_distance": layer.mean_distance,
        "quantiles": _named(layer.quantiles),
        "limit": _axes(layer.limit),
        "limit_distances": None if layer.limit_distances is None else list(layer.limit_distances),
        "at_limit": None if layer.at_limit is None else _axes([asdict(share) for share in layer.at_limit]),
        "initialization_points": None if layer.points is None else layer.points.T.tolist(),
        "at_initialization": None if layer.at_points is None else asdict(layer.at_points),
        "bin_width": layer.bin_width,
        "filters": [{**_filter(d), "spikes": [_spike(spike) for spike in d.spikes]} for d in layer.distributions],
    }


def change_entry(layer: LayerChanges) -> dict[str, Any]:
    """The JSON object of one layer's, or group's, changes."""
    return {
        "name": layer.name,
        "layers": list(layer.layers),
        "units": layer.units,
        "mean_distance": layer.mean_distance,
        "quantiles": _named(layer.quantiles),
        "mean_change": _axes(layer.mean_change),
        "unmoved": asdict(layer.unmoved),
        "limit": _axes(layer.limit),
        "bin_width": layer.bin_width,
        "filters": [_filter(distribution) for distribution in layer.distributions],
    }


def sigma_entry(layer: LayerSigmas) -> dict[str, Any]:
    """The JSON object of one layer's, or group's, sigmas."""
    return {
        "name": layer.name,
        "layers": list(layer.layers),
        "units": layer.units,
        "per_unit": layer.per_unit,
        "sigma": _values(layer.now),
        "before": _values(layer.before),
        "change": _values(layer.change),
    }


def print_displacements(layers: Sequence[LayerDistributions], title: str, near: float) -> None:
    """Print the distances to the centre, and the spikes if there are any."""
    columns = ["layer", "units", "mean (px)", "25% (px)", *_QUANTILES[1:], "unmoved", "of |w|", "at limit y", "x"]
    rows = []
    for layer in layers:
        unmoved = (None, None) if layer.at_points is None else (layer.at_points.units, layer.at_points.weight)
        at_limit = (None, None) if layer.at_limit is None else tuple(share.units for share in layer.at_limit)
        percents = map(_percent, (*unmoved, *at_limit))
        rows.append((layer.name, layer.units, layer.mean_distance, *_row(layer.quantiles), *percents))
    legend = (
        f"unmoved: within {near:g} px of an initialisation point; 25%: that share of |w| lies within this distance; "
        "the limit holds per axis, so distances at it go up to the corner of its box"
    )
    print_table(f"{title}: Euclidean distance to the centre, weighted by |w|", columns, rows, legend=legend)
    spikes = [
        (layer.name, d.label, spike.distance, _percent(spike.weight), spike.reason or "unknown")
        for layer in layers
        for d in layer.distributions
        for spike in d.spikes
    ]
    if spikes:
        print_table(f"{title}: spikes", ["layer", "filter", "at (px)", "of |w|", "reason"], spikes)


def print_changes(layers: Sequence[LayerChanges], title: str, near: float) -> None:
    """Print the distances moved."""
    columns = ["layer", "units", "mean (px)", "25% (px)", *_QUANTILES[1:], "mean y", "x", "unmoved", "of |w|"]
    rows = []
    for layer in layers:
        unmoved: Share = layer.unmoved
        percents = map(_percent, (unmoved.units, unmoved.weight))
        drift = layer.mean_change or (None, None)
        rows.append((layer.name, layer.units, layer.mean_distance, *_row(layer.quantiles), *drift, *percents))
    legend = (
        f"unmoved: by at most {near:g} px; 25%: that share of |w| moved no farther; mean y, x: the drift of the whole"
    )
    print_table(f"{title}: Euclidean distance moved, weighted by |w|", columns, rows, legend=legend)


def print_sigmas(layers: Sequence[LayerSigmas], title: str) -> None:
    """Print the sigmas and, beside a second file, their changes."""
    columns = ["layer", "units", "sigma", "mean (px)", "25% (px)", *_QUANTILES[1:], "mean change", "least", "greatest"]
    rows = []
    for layer in layers:
        change = layer.change
        changes = (None,) * 3 if change is None else (change.mean, change.low, change.high)
        kind = "per unit" if layer.per_unit else "per layer"
        rows.append((layer.name, layer.units, kind, layer.now.mean, *_row(layer.now.quantiles), *changes))
    legend = "25%: that share of |w| has at most this sigma, in dilated pixels"
    print_table(f"{title}: sigma, weighted by |w|", columns, rows, legend=legend)


def _filter(distribution: Distribution) -> dict[str, Any]:
    return {
        "share": distribution.weight_filter.share,
        "label": distribution.label,
        "units": distribution.units,
        "mean_distance": distribution.mean_distance,
    }


def _spike(spike: Spike) -> dict[str, Any]:
    return {**asdict(spike), "reason": spike.reason}


def _values(values: Values | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        "mean": values.mean,
        "quantiles": _named(values.quantiles),
        "low": values.low,
        "high": values.high,
        "bin_width": float(values.edges[1] - values.edges[0]),
        "filters": [
            {"share": s.weight_filter.share, "label": s.label, "units": s.units, "mean": s.mean} for s in values.spreads
        ],
    }


def _named(quantiles: dict[float, float] | None) -> dict[str, float] | None:
    return None if quantiles is None else {str(q): value for q, value in quantiles.items()}


def _axes(pair: Sequence[Any] | None) -> dict[str, Any] | None:
    return None if pair is None else dict(zip("yx", pair, strict=True))


def _row(quantiles: dict[float, float] | None) -> list[float | None]:
    return [None] * len(_QUANTILES) if quantiles is None else list(quantiles.values())


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
