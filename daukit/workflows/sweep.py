"""Prune a checkpoint at several thresholds: the paper's Table 2 and Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daukit.checkpoint import Checkpoint
from daukit.datasets import Layout, Split, TaskName
from daukit.pruning import PruneReport, RelativeTo, Score, select, sweep
from daukit.pruning.removal import remove_units
from daukit.pruning.rules import MAGNITUDE, RANDOM
from daukit.pruning.scores import Sizes
from daukit.results import Count, Positive, Progress, Share, Size
from daukit.texts import csv_text, visible
from daukit.workflows import outputs
from daukit.workflows.choosing import stages
from daukit.workflows.evaluator import Evaluator
from daukit.workflows.headlines import HEADLINES, headline_of, named
from daukit.workflows.recalibration import Recalibrator
from daukit.workflows.scores import SYMBOLS, TAYLOR, Scoring

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from daukit.plots.pruning import Curve

_Way = Literal["score", "random"]
"""A way to choose as many units."""


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """The network, pruned at one threshold.

    Attributes:
        threshold: units with a score below this share of their reference go.
        units: units that stay.
        accuracy: accuracy on the test images, where images were given.
        mean_iou: mean IoU on the test images, if the network segments.
        psnr: PSNR on the test images, in decibels, if the network deblurs.
        random: the same figure with as many units of every layer removed at random, where that was asked for.
    """

    threshold: Share
    units: Count
    accuracy: Share | None = None
    mean_iou: Share | None = None
    psnr: Positive | None = None
    random: Positive | None = None


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
    """Units, and figures of test images, of a network that is pruned at several thresholds.

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
    layout: Layout | None = None,
    task: TaskName | None = None,
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
        data: folder of images with labels, masks or sharp pictures, to measure the networks on its test images.
        layout: of ``data`` and of ``recalibrate``; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        random_seed: as a control, also remove as many units of every layer at random, with this seed. With
            ``score="random"`` the seed of the scores, which are the control already.
        figure: file of a drawing: accuracy, mean IoU or PSNR against units; without ``data`` units against the
            threshold.
        csv: file of a table: a line per threshold and layer.
        overwrite: replace files that exist.
        model: as in ``daukit.load``.
        device: where to run the network.
        on_progress: told of progress.

    Raises:
        ValueError: a threshold outside [0, 1], a ``random_seed`` or ``recalibrate`` without ``data``, or a ``layout``
            or ``task`` that is not the network's.
        CheckpointError: there is no DAU layer, one is damaged, or the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    if score != RANDOM and random_seed is not None and data is None:
        raise ValueError("removal at random is compared by accuracy: random_seed needs data")
    if recalibrate is not None and data is None:
        raise ValueError("recalibration is compared by accuracy: recalibrate needs data")
    outputs.check_outputs(figure, csv, overwrite=overwrite, sources=[checkpoint.path])
    reads: dict[str, Any] = {"layout": layout, "task": task}
    scoring = Scoring(score=score, data=data, split=split, **reads)
    parts = stages(on_progress, 1 + (scoring.name == TAYLOR))
    where: dict[str, Any] = {"model": model, "device": device}
    sizes = scoring.sizes(checkpoint, **where, on_progress=next(parts) if scoring.name == TAYLOR else None)
    seed = (random_seed or 0) if score == RANDOM else None
    reports = sweep(checkpoint, thresholds, relative_to, score=scoring.name, seed=seed, sizes=sizes)
    recalibrator = None if recalibrate is None else Recalibrator(recalibrate, split=split, **reads, **where)
    ways: dict[_Way, int | None] = {"score": seed}
    if random_seed is not None and score != RANDOM:
        ways["random"] = random_seed
    measured: list[dict[str, float]] = [{} for _ in reports]
    if data is not None:
        networks = len(reports) * len(ways)
        evaluate = Evaluator(data, **reads, networks=networks, on_progress=next(parts), **where)
        for report, figures in zip(reports, measured, strict=True):
            for way, way_seed in ways.items():
                pruned = _pruned(checkpoint, report, sizes, way_seed)
                found = named(evaluate(recalibrator(pruned) if recalibrator else pruned))
                figures |= found if way == "score" else {"random": next(iter(found.values()))}
    points = [
        SweepPoint(threshold=threshold, units=report.units_after, **figures)
        for threshold, report, figures in zip(thresholds, reports, measured, strict=True)
    ]
    result = Sweep(
        relative_to=relative_to, score=scoring.name, recalibrated=recalibrator.images if recalibrator else None,
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

    Only the network's lines have figures of test images, in a column for each way of pruning that was measured.
    """
    columns = measured_in(sweep)
    lines: list[tuple[object, ...]] = []
    for i, point in enumerate(sweep.sweep):
        none = [None] * len(columns)
        lines += [(point.threshold, layer.name, layer.units_before, layer.units[i], *none) for layer in sweep.layers]
        figures = [getattr(point, column) for column in columns]
        lines.append((point.threshold, "total", sweep.units_before, point.units, *figures))
    return csv_text(("threshold", "layer", "units_before", "units_after", *columns), lines)


def measured_in(sweep: Sweep) -> list[str]:
    """The fields of ``SweepPoint`` that were measured: the figure of the network's task, and ``random``."""
    first = sweep.sweep[0] if sweep.sweep else None
    headline = headline_of(first)
    own = [] if headline is None else [headline.name]
    return [*own, "random"] if first is not None and first.random is not None else own


def _draw(sweep: Sweep) -> Figure:
    """Figures of test images by way of pruning; the share of units left by layer where none were measured."""
    from daukit.plots.pruning import Curve, plot_scores, plot_units

    thresholds, units = [point.threshold for point in sweep.sweep], [point.units for point in sweep.sweep]
    columns = measured_in(sweep)
    if columns:
        smallest = f"smallest {SYMBOLS.get(sweep.score, sweep.score)} removed"
        curves = [
            Curve(
                label, thresholds, units, [getattr(point, column) for point in sweep.sweep], control=column == "random"
            )
            for column, label in zip(columns, (smallest, "as many, at random"), strict=False)
        ]
        headline = HEADLINES[columns[0]]
        return plot_scores(curves, headline.axis, percent=headline.is_share)
    return plot_units(curves_of(sweep))


def curves_of(sweep: Sweep) -> list[Curve]:
    """The share of units left against the threshold, a curve per layer and one for all of them."""
    from daukit.plots.pruning import Curve

    thresholds = [point.threshold for point in sweep.sweep]
    curves = []
    for layer in sweep.layers:
        shares = [left / max(1, layer.units_before) for left in layer.units]
        curves.append(Curve(visible(layer.name), thresholds, shares))
    shares = [point.units / max(1, sweep.units_before) for point in sweep.sweep]
    return [*curves, Curve("all layers", thresholds, shares, control=True)]
