"""Prune a checkpoint or a file: merge units, remove some, drop channels, measure, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daukit.channels import LayerChannels, dropping
from daukit.checkpoint import Checkpoint, write
from daukit.checkpoint.file import stored_bytes
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.pruning import LayerCount, LayerMerge, PruneReport, RelativeTo, Rule, merge, prune_file, select
from daukit.pruning.removal import remove_units
from daukit.results import Count, Positive, Progress, Share, Size
from daukit.workflows.accuracy import Evaluator
from daukit.workflows.costs import cost_of_checkpoint
from daukit.workflows.timing import ForwardTimes, time_checkpoints


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
        threshold: units with |w| below this share of their reference go; null where only single layers have one.
        layer_thresholds: thresholds of single layers, by name.
        units: number of units to keep, where that was the budget.
        remove: share of the units to remove, where that was the budget.
        relative_to: the part of the network whose largest |w| is the reference; null where nothing was removed for its
            weight.
        seed: seed of the random control; null without one.
        least_kept: for a budget, the smallest |w| / reference of a unit that stays.
        ties: for a budget, the number of units with exactly that share that went.
        units_before: units of the network before.
        units_after: units of the network after.
        layers: the DAU layers, in the network's order.
        merge: what merging did, where it was asked for.
        channels: layers of which channels were dropped, or could not be; where that was asked for.
        accuracy_before: accuracy on the test images before, where images were given.
        accuracy_after: accuracy on the test images after, where images were given.
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
    least_kept: Positive | None
    ties: Count | None
    units_before: Count
    units_after: Count
    layers: tuple[LayerCount, ...]
    merge: Merging | None = None
    channels: tuple[LayerChannels, ...] | None = None
    accuracy_before: Share | None = None
    accuracy_after: Share | None = None
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
    merge_within: float | None = None,
    drop_channels: bool = False,
    data: Path | None = None,
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
        rule: the units to remove. If omitted, none is removed for its weight.
        merge_within: first merge units of one filter and of equal sign that lie within so many input pixels.
        drop_channels: at last drop channels that are always zero or that nothing reads.
        data: folder of IDX files, to measure the accuracy before and after on its test images.
        time: measure the time of the forward pass before and after.
        size: (height, width) of the images to time, where the checkpoint does not tell them.
        output: file to write. If omitted, nothing is written.
        overwrite: replace ``output`` if it exists.
        model: as in ``daukit.load``.
        device: where to run the networks.
        on_progress: told of progress.

    Raises:
        ValueError: a budget of more units than there are, units that cannot be merged, or a network whose channels
            cannot be dropped.
        CheckpointError: a layer is missing or damaged, or the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        OutputError: ``output`` cannot be written, or it exists and ``overwrite`` is False.
    """
    _check_output(output, overwrite, checkpoint.path)
    after, report, merging, channels = checkpoint, None, None, None
    if merge_within is not None:
        after, merged = merge(after, merge_within)
        merging = Merging(within=merge_within, layers=merged)
    if rule is not None:
        report, keeps = select(after, rule)
        after = remove_units(after, keeps, "prune", rule.to_json())
    if drop_channels:
        after, channels = dropping.drop_channels(after, model=model)
    units = {name: (_units(checkpoint, name), _units(after, name)) for name in checkpoint.layer_names}
    counted = _counted(report, units, checkpoint, after, model)
    if data is not None:
        evaluate = Evaluator(data, model=model, device=device, networks=2, on_progress=on_progress)
        for when, network in (("before", checkpoint), ("after", after)):
            counted[f"accuracy_{when}"] = evaluate(network).accuracy
    if time:
        counted["time"] = time_checkpoints(checkpoint, after, size=size, model=model, device=device)
    written = stored_bytes(after) if output is None else write(after, output, overwrite=overwrite)
    size_before = stored_bytes(checkpoint) if checkpoint.file_size is None else checkpoint.file_size
    counted |= {"bytes_before": size_before, "bytes_after": written, "output": output}
    return Pruning(**counted, merge=merging, channels=channels)


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
) -> dict[str, Any]:
    """The rule, the units and the multiply-adds of a ``Pruning``; of both checkpoints only the headers are needed."""
    rule = None if report is None else report.rule
    thresholds = {} if report is None else {layer.name: layer.threshold for layer in report.layers}
    first = cost_of_checkpoint(before, {name: counts[0] for name, counts in units.items()}, model)
    second = cost_of_checkpoint(after, {name: counts[1] for name, counts in units.items()}, model)
    return {
        "threshold": rule and rule.threshold,
        "layer_thresholds": dict(rule.layer_thresholds) if rule else {},
        "units": rule and rule.units,
        "remove": rule and rule.remove,
        "relative_to": rule and rule.relative_to,
        "seed": rule and rule.seed,
        "least_kept": report and report.least_kept,
        "ties": report and report.ties,
        "units_before": sum(counts[0] for counts in units.values()),
        "units_after": sum(counts[1] for counts in units.values()),
        "layers": tuple(LayerCount(name, *counts, thresholds.get(name)) for name, counts in units.items()),
        "input": first.input,
        "multiply_adds_before": first.multiply_adds,
        "multiply_adds_after": second.multiply_adds,
    }
