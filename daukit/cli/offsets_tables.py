"""The tables of ``daukit plot-offsets``: displacements, their changes, sigmas, or moves in a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from daukit.cli.printing import note, print_table
from daukit.texts import counted

if TYPE_CHECKING:
    from daukit.offsets.summaries import Quantile
    from daukit.workflows.moves import MovesPlot
    from daukit.workflows.offsets import ChangePlot, DisplacementPlot, OffsetsPlot, SigmaPlot

_QUANTILES = ("25%", "50%", "75%", "90%")


def print_offsets(result: OffsetsPlot, title: str) -> None:
    """Print a line per layer, or group of layers; ``title`` begins the line above the table."""
    if result.kind == "sigma":
        _print_sigmas(result, title)
    elif result.kind == "change":
        _print_changes(result, title)
    else:
        _print_displacements(result, title)


def print_moves(result: MovesPlot) -> None:
    """Print a table per log, with a line per layer: where its units were after the last epoch."""
    columns = ["layer", "moved (px)", "beyond a pixel", "at limit", "in last epoch (px)"]
    legend = (
        "moved: mean distance from where units were when the run began; beyond a pixel: share of units farther than "
        "that from there; each unit counts the same"
    )
    for log in result.logs:
        rows = [
            (layer.name, layer.mean, _percent(layer.beyond_a_pixel), _percent(layer.at_limit), layer.epoch_mean)
            for layer in log.layers
        ]
        is_last = log is result.logs[-1]
        print_table(f"{log.log}: after {counted(log.epochs, 'epoch')}", columns, rows, legend=legend if is_last else "")


def _print_displacements(result: DisplacementPlot, title: str) -> None:
    columns = ["layer", "units", "mean (px)", "25% (px)", *_QUANTILES[1:], "unmoved", "of |w|", "at limit y", "x"]
    rows = []
    for layer in result.layers:
        still, limit = layer.at_initialization, layer.at_limit
        unmoved = (None, None) if still is None else (still.units, still.weight)
        at_limit = (None, None) if limit is None else (limit.y.units, limit.x.units)
        percents = map(_percent, (*unmoved, *at_limit))
        rows.append((layer.name, layer.units, layer.mean_distance, *_row(layer.quantiles), *percents))
    legend = (
        f"unmoved: within {result.near:g} px of an initialisation point; 25%: that share of |w| lies within this "
        "distance; the limit holds per axis, so distances at it go up to the corner of its box"
    )
    print_table(f"{title}: Euclidean distance to the centre, weighted by |w|", columns, rows, legend=legend)
    for layer in result.layers:
        if layer.pixels_read is not None:
            far = "" if layer.rounding is None else f", {layer.rounding:.2g} px away on average, weighted by |w|"
            note(f"{layer.name} reads at {layer.pixels_read:,} whole pixels, to which displacements are rounded{far}")
    spikes = [
        (layer.name, kept.label, spike.distance, _percent(spike.weight), spike.reason or "unknown")
        for layer in result.layers
        for kept in layer.filters
        for spike in kept.spikes
    ]
    if spikes:
        print_table(f"{title}: spikes", ["layer", "filter", "at (px)", "of |w|", "reason"], spikes)


def _print_changes(result: ChangePlot, title: str) -> None:
    columns = ["layer", "units", "mean (px)", "25% (px)", *_QUANTILES[1:], "mean y", "x", "unmoved", "of |w|"]
    rows = []
    for layer in result.layers:
        drift = (None, None) if layer.mean_change is None else (layer.mean_change.y, layer.mean_change.x)
        percents = map(_percent, (layer.unmoved.units, layer.unmoved.weight))
        rows.append((layer.name, layer.units, layer.mean_distance, *_row(layer.quantiles), *drift, *percents))
    legend = (
        f"unmoved: by at most {result.near:g} px; 25%: that share of |w| moved no farther; mean y, x: the drift of all "
        "units together"
    )
    print_table(f"{title}: Euclidean distance moved, weighted by |w|", columns, rows, legend=legend)


def _print_sigmas(result: SigmaPlot, title: str) -> None:
    columns = ["layer", "units", "sigma", "mean (px)", "25% (px)", *_QUANTILES[1:], "mean change", "least", "greatest"]
    rows = []
    for layer in result.layers:
        change = layer.change
        changes = (None,) * 3 if change is None else (change.mean, change.low, change.high)
        kind = "per unit" if layer.per_unit else "per layer"
        rows.append((layer.name, layer.units, kind, layer.sigma.mean, *_row(layer.sigma.quantiles), *changes))
    legend = "25%: that share of |w| has at most this sigma, in dilated pixels"
    print_table(f"{title}: sigma, weighted by |w|", columns, rows, legend=legend)


def _row(quantiles: Mapping[Quantile, float] | None) -> list[float | None]:
    return [None] * len(_QUANTILES) if quantiles is None else list(quantiles.values())


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
