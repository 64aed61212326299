"""Prune a checkpoint or a file: merge units, remove some, drop channels, recalibrate, measure, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daukit.channels import LayerChannels, dropping
from daukit.checkpoint import Checkpoint, write
from daukit.checkpoint.file import stored_bytes
from daukit.datasets import Layout, Split, TaskName
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.pruning import LayerCount, LayerMerge, PruneReport, RelativeTo, Rule, Score, merge, prune_file
from daukit.pruning.rules import MAGNITUDE
from daukit.results import Count, Positive, Progress, Share, Size
from daukit.workflows.choosing import choose, stages
from daukit.workflows.costs import cost_of_checkpoint
from daukit.workflows.evaluator import Evaluator
from daukit.workflows.headlines import named
from daukit.workflows.recalibration import Recalibrator
from daukit.workflows.scores import TAYLOR, scoring_of
from daukit.workflows.timing import ForwardTimes, time_checkpoints
from daukit.workflows.unit_costs import TimePlan


@dataclass(frozen=True, kw_only=True)
class Merging:
    """Units that were merged before others were removed.

    Attributes:
        within: largest distance of units that were merged, in pixels of the layer's input.
        layers: the layers, in the network's order.
    """

    within: Positive
    layers: tuple[LayerMerge, ...]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Units, sizes and costs of a network before and after one pruning.

    Attributes:
        threshold: units with a score below this share of their reference go; null where only single layers have one.
        layer_thresholds: thresholds of single layers, by name.
        units: number of units to keep, where that was the budget.
        remove: share of the units to remove, where that was the budget.
        relative_to: the part of the network whose largest score is the reference; null where nothing was removed for
            its score.
        seed: seed of the random control, or of random scores; null without one.
        score: name of what units were compared by; |w| without this key.
        macs: share of the multiply-adds to keep, where that was the budget.
        time_budget: share of the time to keep, where that was the budget.
        plan: times by which units were chosen, where time was the budget; time has what was measured afterwards.
        least_kept: for a budget, the smallest score / reference of a unit that stays.
        ties: for a budget of units, the number of units with exactly that share that went.
        units_before: units of the network before.
        units_after: units of the network after.
        layers: the DAU layers, in the network's order.
        merge: what merging did, where it was asked for.
        channels: layers of which channels were dropped, or could not be; where that was asked for.
        recalibrated: images from which the statistics of batch norms were taken anew, where that was asked for.
        accuracy_before: accuracy on the test images before, where images were given.
        accuracy_after: accuracy on the test images after, where images were given.
        mean_iou_before: mean IoU on the test images before, if the network segments.
        mean_iou_after: mean IoU on the test images after, if the network segments.
        psnr_before: PSNR on the test images before, in decibels, if the network deblurs.
        psnr_after: PSNR on the test images after, in decibels, if the network deblurs.
        time: times of the forward pass, where they were asked for.
        input: sizes (batch, channels, height, width) of the image that multiply-adds are counted for; null where
            nothing tells.
        multiply_adds_before: multiply-adds of the forward pass before; null where the input's size is unknown.
        multiply_adds_after: multiply-adds of the forward pass after; null where the input's size is unknown.
        bytes_before: size of the file that was pruned, or that a model in memory would make.
        bytes_after: size of the pruned file.
        output: path of the checkpoint written; null where none was.
    """

    threshold: Share | None
    layer_thresholds: Mapping[str, Share]
    units: Count | None
    remove: Share | None
    relative_to: RelativeTo | None
    seed: int | None
    score: str = MAGNITUDE
    macs: Share | None = None
    time_budget: Share | None = None
    plan: TimePlan | None = None
    least_kept: Positive | None
    ties: Count | None
    units_before: Count
    units_after: Count
    layers: tuple[LayerCount, ...]
    merge: Merging | None = None
    channels: tuple[LayerChannels, ...] | None = None
    recalibrated: Size | None = None
    accuracy_before: Share | None = None
    accuracy_after: Share | None = None
    mean_iou_before: Share | None = None
    mean_iou_after: Share | None = None
    psnr_before: Positive | None = None
    psnr_after: Positive | None = None
    time: ForwardTimes | None = None
    input: tuple[Size, Size, Size, Size] | None
    multiply_adds_before: Count | None
    multiply_adds_after: Count | None
    bytes_before: Count
    bytes_after: Count
    output: Path | None


def prune_checkpoint(
    checkpoint: Checkpoint,
    rule: Rule | None = None,
    *,
    score: Score | None = None,
    split: Split = "train",
    merge_within: float | None = None,
    drop_channels: bool = False,
    recalibrate: Path | None = None,
    data: Path | None = None,
    layout: Layout | None = None,
    task: TaskName | None = None,
    time: bool = False,
    size: tuple[int, int] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Pruning:
    """Prune a checkpoint in memory, compare the network with what it was, and write it.

    Args:
        checkpoint: the network; it is not changed.
        rule: the units to remove. If omitted, none is removed for its score.
        score: a score of your own, as in ``daukit.prune``, in the place of that which the rule names.
        split: images of ``data`` and of ``recalibrate`` that count for ``score="taylor"`` and for statistics.
        merge_within: first merge units of one filter and of equal sign that lie within so many input pixels.
        drop_channels: then drop channels that are always zero or that nothing reads.
        recalibrate: at last take the statistics of batch norms anew, from the images in this folder.
        data: folder of images with labels, masks or sharp pictures, to measure the network before and after on its
            test images.
        layout: of ``data`` and of ``recalibrate``; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        time: measure the time of the forward pass before and after; a budget of time always does.
        size: (height, width) of the images to time or to count by, where the checkpoint does not tell them.
        output: file to write. If omitted, nothing is written.
        overwrite: replace ``output`` if it exists.
        model: as in ``daukit.load``.
        device: where to run the networks.
        on_progress: told of progress.

    Raises:
        ValueError: a budget of more units than there are or of less cost than can be reached, units that cannot be
            merged, a network whose channels cannot be dropped, or a ``layout`` or ``task`` that is not the network's.
        CheckpointError: a layer is missing or damaged, or the network cannot be built.
        DataError: a folder or its files are wrong, or they and the network do not fit.
        OutputError: ``output`` cannot be written, or it exists and ``overwrite`` is False.
    """
    _check_output(output, overwrite, checkpoint.path)
    reads: dict[str, Any] = {"layout": layout, "task": task}
    scoring = scoring_of(rule, score, data, split, layout, task)
    if rule is not None:
        rule = replace(rule, score=scoring.name)
    tasks = [rule is not None and scoring.name == TAYLOR, recalibrate is not None, data is not None]
    parts = stages(on_progress, sum(tasks))
    where: dict[str, Any] = {"model": model, "device": device}
    after, choice, merging, channels = checkpoint, None, None, None
    if merge_within is not None:
        after, merged = merge(after, merge_within)
        merging = Merging(within=merge_within, layers=merged)
    if rule is not None:
        progress = next(parts) if tasks[0] else None
        choice = choose(checkpoint, after, rule, scoring, size=size, on_progress=progress, **where)
        after = choice.applied(after)
    if drop_channels:
        after, channels = dropping.drop_channels(after, model=model)
    images = None
    if recalibrate is not None:
        recalibrator = Recalibrator(recalibrate, split=split, **reads, on_progress=next(parts), **where)
        after, images = recalibrator(after), recalibrator.images
    units = {name: (_units(checkpoint, name), _units(after, name)) for name in checkpoint.layer_names}
    counted_at = size if rule is not None and rule.macs is not None else None
    counted = _counted(choice.report if choice else None, units, checkpoint, after, model, counted_at)
    counted |= {"merge": merging, "channels": channels, "recalibrated": images, "plan": choice.plan if choice else None}
    if data is not None:
        evaluate = Evaluator(data, **reads, networks=2, on_progress=next(parts), **where)
        for when, network in (("_before", checkpoint), ("_after", after)):
            counted |= named(evaluate(network), when)
    if time or (rule is not None and rule.time_budget is not None):
        counted["time"] = time_checkpoints(checkpoint, after, size=size, **where)
    written = stored_bytes(after) if output is None else write(after, output, overwrite=overwrite)
    size_before = stored_bytes(checkpoint) if checkpoint.file_size is None else checkpoint.file_size
    return Pruning(**counted, bytes_before=size_before, bytes_after=written, output=output)


def prune_layer_by_layer(source: Path, rule: Rule, *, output: Path | None = None, overwrite: bool = False) -> Pruning:
    """Prune a daukit file into another one as ``prune_checkpoint`` does, with one layer's units in memory at a time.

    Args:
        source: a file with a daukit header.
        rule: the units to remove.
        output: file to write. If omitted, nothing is written.
        overwrite: replace ``output`` if it exists.

    Raises:
        ValueError: a budget of more units than there are.
        CheckpointError: the file is missing or damaged, has no daukit header, or lacks a layer of the rule.
        OutputError: ``output`` cannot be written, or it exists and ``overwrite`` is False.
    """
    _check_output(output, overwrite, source)
    done = prune_file(source, rule, output, overwrite=overwrite)
    network = Checkpoint(done.header, {}, source)
    counted = _counted(done.report, done.report.units_by_layer, network, network)
    return Pruning(**counted, bytes_before=done.bytes_before, bytes_after=done.bytes_after, output=output)


def _check_output(output: Path | None, overwrite: bool, source: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    if output is not None:
        sources = [] if source is None else [source]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)


def _units(checkpoint: Checkpoint, layer: str) -> int:
    return checkpoint.layer(layer).weight.numel()


def _counted(
    report: PruneReport | None,
    units: Mapping[str, tuple[int, int]],
    before: Checkpoint,
    after: Checkpoint,
    model: str | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The rule, the units and the multiply-adds of a ``Pruning``; of both checkpoints only the headers are needed."""
    rule = None if report is None else report.rule
    thresholds = {} if report is None else {layer.name: layer.threshold for layer in report.layers}
    first = cost_of_checkpoint(before, {name: counts[0] for name, counts in units.items()}, model, size)
    second = cost_of_checkpoint(after, {name: counts[1] for name, counts in units.items()}, model, size)
    return {
        "threshold": rule and rule.threshold,
        "layer_thresholds": dict(rule.layer_thresholds) if rule else {},
        "units": rule and rule.units,
        "remove": rule and rule.remove,
        "relative_to": rule and rule.relative_to,
        "seed": rule and rule.seed,
        "score": rule.score if rule else MAGNITUDE,
        "macs": rule and rule.macs,
        "time_budget": rule and rule.time_budget,
        "least_kept": report and report.least_kept,
        "ties": report and report.ties,
        "units_before": sum(counts[0] for counts in units.values()),
        "units_after": sum(counts[1] for counts in units.values()),
        "layers": tuple(LayerCount(name, *counts, thresholds.get(name)) for name, counts in units.items()),
        "input": first.input,
        "multiply_adds_before": first.multiply_adds,
        "multiply_adds_after": second.multiply_adds,
    }
