"""Prune a checkpoint at several thresholds: the paper's Table 2 and Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daukit.checkpoint import Checkpoint
from daukit.datasets import Split
from daukit.pruning import PruneReport, RelativeTo, Score, select, sweep
from daukit.pruning.removal import remove_units
from daukit.pruning.rules import MAGNITUDE, RANDOM
from daukit.pruning.scores import Sizes
from daukit.results import Count, Progress, Share, Size
from daukit.texts import csv_text, visible
from daukit.workflows import outputs
from daukit.workflows.accuracy import Evaluator
from daukit.workflows.choosing import stages
from daukit.workflows.recalibration import Recalibrator
from daukit.workflows.scores import SYMBOLS, TAYLOR, Scoring

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Way = Literal["accuracy", "random"]

_WAYS: tuple[_Way, ...] = ("accuracy", "random")
"""Fields of ``SweepPoint`` with an accuracy."""


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """The network, pruned at one threshold.

    Attributes:
        threshold: units with a score below this share of their reference go.
        units: units that stay.
        accuracy: accuracy on the test images, where images were given.
        random: accuracy with as many units of every layer removed at random, where that was asked for.
    """

    threshold: Share
    units: Count
    accuracy: Share | None = None
    random: Share | None = None


@dataclass(frozen=True, kw_only=True)
class LayerSweep:
    """One layer in a sweep.

    Attributes:
        name: name of the layer.
        units_before: units of the layer as it is.
        units: units that stay, by threshold.
    """

    name: str
    units_before: Count
    units: tuple[Count, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Units, and accuracies, of a network that is pruned at several thresholds.

    Attributes:
        relative_to: the part of the network whose largest score is the reference.
        score: name of what units were compared by; |w| without this key.
        recalibrated: images from which the statistics of batch norms were taken anew, where that was asked for.
        units_before: units of the network as it is.
        sweep: the network by threshold.
        layers: the DAU layers, in the network's order.
        csv: path of the table written; null where none was.
        figure: path of the figure written; null where none was.
    """

    relative_to: RelativeTo
    score: str = MAGNITUDE
    recalibrated: Size | None = None
    units_before: Count
    sweep: tuple[SweepPoint, ...]
    layers: tuple[LayerSweep, ...]
    csv: Path | None
    figure: Path | None


def sweep_thresholds(
    checkpoint: Checkpoint,
    thresholds: Sequence[float],
    relative_to: RelativeTo = "layer",
    *,
    score: str | Score = MAGNITUDE,
    split: Split = "train",
    recalibrate: Path | None = None,
    data: Path | None = None,
    random_seed: int | None = None,
    figure: Path | None = None,
    csv: Path | None = None,
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Sweep:
    """Prune all layers at every threshold.

    Args:
        checkpoint: the network; it is not changed.
        thresholds: units with a score below this share of their reference go.
        relative_to: as in ``Rule``.
        score: what is compared, a name or a function as in ``daukit.prune``.
        split: images of ``data`` and of ``recalibrate`` that count for ``score="taylor"`` and for statistics.
        recalibrate: take the statistics of batch norms anew after each pruning, from the images in this folder.
        data: folder of images with labels, to measure accuracies on its test images.
        random_seed: as a control, also remove as many units of every layer at random, with this seed. With
            ``score="random"`` the seed of the scores, which are the control already.
        figure: file of a drawing: accuracy against units; without ``data`` units against the threshold.
        csv: file of a table: a line per threshold and layer.
        overwrite: replace files that exist.
        model: as in ``daukit.load``.
        device: where to run the network.
        on_progress: told of progress.

    Raises:
        ValueError: a threshold outside [0, 1], or a ``random_seed`` or ``recalibrate`` without ``data``.
        CheckpointError: there is no DAU layer, one is damaged, or the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    if score != RANDOM and random_seed is not None and data is None:
        raise ValueError("removal at random is compared by accuracy: random_seed needs data")
    if recalibrate is not None and data is None:
        raise ValueError("recalibration is compared by accuracy: recalibrate needs data")
    outputs.check_outputs(figure, csv, overwrite=overwrite, sources=[checkpoint.path])
    scoring = Scoring(score=score, data=data, split=split)
    parts = stages(on_progress, 1 + (scoring.name == TAYLOR))
    where: dict[str, Any] = {"model": model, "device": device}
    sizes = scoring.sizes(checkpoint, **where, on_progress=next(parts) if scoring.name == TAYLOR else None)
    seed = (random_seed or 0) if score == RANDOM else None
    reports = sweep(checkpoint, thresholds, relative_to, score=scoring.name, seed=seed, sizes=sizes)
    recalibrator = None if recalibrate is None else Recalibrator(recalibrate, split=split, **where)
    ways: dict[_Way, int | None] = {"accuracy": seed}
    if random_seed is not None and score != RANDOM:
        ways["random"] = random_seed
    measured: list[dict[str, float]] = [{} for _ in reports]
    if data is not None:
        evaluate = Evaluator(data, networks=len(reports) * len(ways), on_progress=next(parts), **where)
        for report, accuracies in zip(reports, measured, strict=True):
            for way, way_seed in ways.items():
                pruned = _pruned(checkpoint, report, sizes, way_seed)
                accuracies[way] = evaluate(recalibrator(pruned) if recalibrator else pruned).accuracy
    points = [
        SweepPoint(threshold=threshold, units=report.units_after, **accuracies)
        for threshold, report, accuracies in zip(thresholds, reports, measured, strict=True)
    ]
    result = Sweep(
        relative_to=relative_to, score=scoring.name, recalibrated=len(recalibrator.images) if recalibrator else None,
        units_before=sum(checkpoint.layer(name).weight.numel() for name in checkpoint.layer_names),
        sweep=tuple(points), layers=_layers(reports), csv=csv, figure=figure,
    )  # fmt: skip
    table = partial(sweep_to_csv, result)
    outputs.write_outputs(figure, partial(_draw, result), csv, table, overwrite=overwrite)
    return result


def _pruned(checkpoint: Checkpoint, report: PruneReport, sizes: Sizes, seed: int | None) -> Checkpoint:
    """The checkpoint without the units of a report; with a seed, without as many at random."""
    rule = replace(report.rule, seed=seed)
    _, keeps = select(checkpoint, rule, sizes)
    return remove_units(checkpoint, keeps, "prune", rule.to_json())


def _layers(reports: Sequence[PruneReport]) -> tuple[LayerSweep, ...]:
    """The layers of several prunings, each with its units after every one of them."""
    return tuple(
        LayerSweep(name=of[0].name, units_before=of[0].units_before, units=tuple(count.units_after for count in of))
        for of in zip(*(report.layers for report in reports), strict=True)
    )


def sweep_to_csv(sweep: Sweep) -> str:
    """The numbers as a table: a line per threshold and layer, and one per threshold for the network.

    Only the network's lines have accuracies, in a column for each way of pruning that was measured.
    """
    ways = _ways(sweep)
    lines: list[tuple[object, ...]] = []
    for i, point in enumerate(sweep.sweep):
        none = [None] * len(ways)
        lines += [(point.threshold, layer.name, layer.units_before, layer.units[i], *none) for layer in sweep.layers]
        accuracies = [getattr(point, way) for way in ways]
        lines.append((point.threshold, "total", sweep.units_before, point.units, *accuracies))
    return csv_text(("threshold", "layer", "units_before", "units_after", *ways), lines)


def _ways(sweep: Sweep) -> list[_Way]:
    """The accuracies that were measured."""
    first = sweep.sweep[0] if sweep.sweep else None
    measured = {} if first is None else {"accuracy": first.accuracy, "random": first.random}
    return [way for way in _WAYS if measured.get(way) is not None]


def _draw(sweep: Sweep) -> Figure:
    """Accuracies by way of pruning; the share of units left by layer where none were measured."""
    from daukit.plots.pruning import Curve, plot_accuracy, plot_units

    thresholds, units = [point.threshold for point in sweep.sweep], [point.units for point in sweep.sweep]
    smallest = f"smallest {SYMBOLS.get(sweep.score, sweep.score)} removed"
    labels: dict[_Way, str] = {"accuracy": smallest, "random": "as many, at random"}
    curves = [
        Curve(labels[way], thresholds, units, [getattr(point, way) for point in sweep.sweep], control=way == "random")
        for way in _ways(sweep)
    ]
    if curves:
        return plot_accuracy(curves)
    for layer in sweep.layers:
        shares = [left / max(1, layer.units_before) for left in layer.units]
        curves.append(Curve(visible(layer.name), thresholds, shares))
    shares = [left / max(1, sweep.units_before) for left in units]
    return plot_units([*curves, Curve("all layers", thresholds, shares, control=True)])
