"""Prune one layer of a checkpoint at a time, to see how much the network depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.checkpoint import Checkpoint
from daukit.datasets import Layout, Split, TaskName
from daukit.pruning import RelativeTo, Rule, Score, one_layer_at_a_time
from daukit.pruning.rules import MAGNITUDE, RANDOM
from daukit.pruning.selection import check_layers
from daukit.results import Count, Positive, Progress, Share, Size
from daukit.texts import csv_text, visible
from daukit.workflows import outputs
from daukit.workflows.choosing import stages
from daukit.workflows.evaluator import AnyResult, Evaluator
from daukit.workflows.headlines import ACCURACY, headline_of, named
from daukit.workflows.recalibration import Recalibrator
from daukit.workflows.scores import TAYLOR, Scoring

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """The network with one layer pruned at one threshold.

    Attributes:
        layer: the layer that is pruned, alone.
        threshold: units with a score below this share of their reference go.
        units_before: units of the layer as it is.
        units_after: units of the layer that stay.
        accuracy: accuracy on the test images, if the network is a classifier.
        mean_iou: mean IoU on the test images, if it segments.
        psnr: PSNR on the test images, in decibels, if it deblurs.
        loss: mean loss on the test images.
        accuracy_change: accuracy less that of the network as it is.
        mean_iou_change: mean IoU less that of the network as it is.
        psnr_change: PSNR less that of the network as it is, in decibels.
        loss_change: loss less that of the network as it is.
    """

    layer: str
    threshold: Share
    units_before: Count
    units_after: Count
    accuracy: Share | None = None
    mean_iou: Share | None = None
    psnr: Positive | None = None
    loss: Positive
    accuracy_change: float | None = None
    mean_iou_change: float | None = None
    psnr_change: float | None = None
    loss_change: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Figures of a network of which one layer at a time is pruned.

    Attributes:
        relative_to: the part of the network whose largest score is the reference.
        score: name of what units were compared by; |w| without this key.
        recalibrated: images from which the statistics of batch norms were taken anew, where that was asked for.
        units_before: units of the network as it is.
        accuracy: accuracy of the network as it is, if it is a classifier.
        mean_iou: mean IoU of the network as it is, if it segments.
        psnr: PSNR of the network as it is, in decibels, if it deblurs.
        loss: mean loss of the network as it is.
        sensitivity: the network by layer and threshold.
        csv: path of the table written; null where none was.
        figure: path of the figure written; null where none was.
    """

    relative_to: RelativeTo
    score: str = MAGNITUDE
    recalibrated: Size | None = None
    units_before: Count
    accuracy: Share | None = None
    mean_iou: Share | None = None
    psnr: Positive | None = None
    loss: Positive
    sensitivity: tuple[LayerSensitivity, ...]
    csv: Path | None
    figure: Path | None


def measure_sensitivity(
    checkpoint: Checkpoint,
    thresholds: Sequence[float],
    relative_to: RelativeTo = "layer",
    *,
    score: str | Score = MAGNITUDE,
    seed: int = 0,
    split: Split = "train",
    recalibrate: Path | None = None,
    data: Path,
    layout: Layout | None = None,
    task: TaskName | None = None,
    figure: Path | None = None,
    csv: Path | None = None,
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Sensitivity:
    """Prune each layer alone at every threshold, and measure the network.

    Args:
        checkpoint: the network; it is not changed.
        thresholds: units with a score below this share of their reference go.
        relative_to: as in ``Rule``.
        score: what is compared, a name or a function as in ``daukit.prune``.
        seed: of ``score="random"``.
        split: images of ``data`` and of ``recalibrate`` that count for ``score="taylor"`` and for statistics.
        recalibrate: take the statistics of batch norms anew after each pruning, from the images in this folder.
        data: folder of images with labels, masks or sharp pictures, whose test images count.
        layout: of ``data`` and of ``recalibrate``; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        figure: file of a drawing: accuracy, mean IoU or PSNR against the share of the layer's units that stays.
        csv: file of a table: a line per layer and threshold.
        overwrite: replace files that exist.
        model: as in ``daukit.load``.
        device: where to run the network.
        on_progress: told of progress.

    Raises:
        ValueError: a threshold outside [0, 1], or a ``layout`` or ``task`` that is not the network's.
        CheckpointError: there is no DAU layer, one is damaged, or the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    outputs.check_outputs(figure, csv, overwrite=overwrite, sources=[checkpoint.path])
    for threshold in thresholds:
        check_layers(checkpoint, Rule(threshold, relative_to))
    reads: dict[str, Any] = {"layout": layout, "task": task}
    scoring = Scoring(score=score, data=data, split=split, **reads)
    parts = stages(on_progress, 1 + (scoring.name == TAYLOR))
    where: dict[str, Any] = {"model": model, "device": device}
    sizes = scoring.sizes(checkpoint, **where, on_progress=next(parts) if scoring.name == TAYLOR else None)
    recalibrator = None if recalibrate is None else Recalibrator(recalibrate, split=split, **reads, **where)
    networks = 1 + len(checkpoint.layer_names) * len(thresholds)
    evaluate = Evaluator(data, **reads, networks=networks, on_progress=next(parts), **where)
    whole = evaluate(checkpoint)
    entries = []
    drawn = seed if score == RANDOM else None
    prunings = one_layer_at_a_time(
        checkpoint, thresholds, relative_to, score=scoring.name, seed=drawn, sizes=sizes
    )  # fmt: skip
    for name, pruned, report in prunings:
        found = evaluate(recalibrator(pruned) if recalibrator else pruned)
        before, after = report.units_by_layer[name]
        entries.append(
            LayerSensitivity(
                layer=name, threshold=report.rule.layer_thresholds[name], units_before=before, units_after=after,
                loss=found.loss, loss_change=found.loss - whole.loss, **_figures(found, whole),
            )
        )  # fmt: skip
    result = Sensitivity(
        relative_to=relative_to,
        score=scoring.name,
        recalibrated=recalibrator.images if recalibrator else None,
        units_before=sum(checkpoint.layer(name).weight.numel() for name in checkpoint.layer_names),
        **named(whole),
        loss=whole.loss,
        sensitivity=tuple(entries),
        csv=csv,
        figure=figure,
    )
    draw = partial(_draw, result)
    outputs.write_outputs(figure, draw, csv, partial(sensitivity_to_csv, result), overwrite=overwrite)
    return result


def _figures(found: AnyResult, whole: AnyResult) -> dict[str, Any]:
    """The figure of the network's task, and how it differs from that of the whole network."""
    before = named(whole)
    return {**named(found), **{f"{name}_change": value - before[name] for name, value in named(found).items()}}


def sensitivity_to_csv(sensitivity: Sensitivity) -> str:
    """The numbers as a table: a line per layer and threshold, with what was measured of ``LayerSensitivity``."""
    entries = sensitivity.sensitivity
    names = [field.name for field in fields(LayerSensitivity)]
    columns = [name for name in names if any(getattr(entry, name) is not None for entry in entries)]
    return csv_text(columns, [[getattr(entry, name) for name in columns] for entry in entries])


def _draw(sensitivity: Sensitivity) -> Figure:
    """The figure of the task against the share of units left, a curve per layer, each from the network as it is."""
    from daukit.plots.pruning import Curve, plot_scores

    headline = headline_of(sensitivity) or ACCURACY
    curves = []
    for name in dict.fromkeys(entry.layer for entry in sensitivity.sensitivity):
        own = [entry for entry in sensitivity.sensitivity if entry.layer == name]
        left = [entry.units_after / max(1, entry.units_before) for entry in own]
        scores = [getattr(each, headline.name) for each in (sensitivity, *own)]
        curves.append(Curve(visible(name), [0.0, *(entry.threshold for entry in own)], [1.0, *left], scores))
    return plot_scores(curves, headline.axis, percent=headline.is_share, shares=True)
