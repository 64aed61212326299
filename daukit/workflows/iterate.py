"""Prune a network to a budget in rounds, each followed by some epochs of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daukit.checkpoint import Checkpoint, read, stored_bytes, write
from daukit.datasets import Layout, Split
from daukit.limits import check_type, is_whole
from daukit.pruning import RelativeTo, Rule, Score
from daukit.pruning.rounds import rounds_of
from daukit.pruning.rules import MAGNITUDE
from daukit.results import Count, Positive, Progress, Share, Size
from daukit.training import Recipe, TrainingOptions
from daukit.workflows.choosing import choose, stages
from daukit.workflows.costs import cost_of_checkpoint
from daukit.workflows.evaluator import Evaluator
from daukit.workflows.headlines import HEADLINES, named
from daukit.workflows.rounds import Crops, Plan, check_files, plan_of, write_pruned
from daukit.workflows.scores import Scoring, scoring_of
from daukit.workflows.timing import ForwardTimes, time_checkpoints
from daukit.workflows.train import prepare_training, run_training
from daukit.workflows.train_runs import Keeping


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: units go, and what is left is trained.

    Attributes:
        round: its number, from 1.
        keep: its budget: the number of units to keep, or the share of the multiply-adds or of the time.
        units: units left; null in a dry run, as is everything that comes of it.
        multiply_adds: multiply-adds of the forward pass; null where the input's size is unknown.
        accuracy_pruned: accuracy on the test images before the training, if the network is a classifier.
        accuracy: accuracy on the test images after it.
        mean_iou_pruned: mean IoU on the test images before the training, if the network segments.
        mean_iou: mean IoU on the test images after it.
        psnr_pruned: PSNR on the test images before the training, in decibels, if the network deblurs.
        psnr: PSNR on the test images after it, in decibels.
        file: checkpoint at the end of the round.
    """

    round: Size
    keep: float
    units: Count | None
    multiply_adds: Count | None
    accuracy_pruned: Share | None
    accuracy: Share | None
    mean_iou_pruned: Share | None = None
    mean_iou: Share | None = None
    psnr_pruned: Positive | None = None
    psnr: Positive | None = None
    file: Path | None


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """A network before and after it was pruned and trained in rounds.

    Attributes:
        units: number of units to keep, where that was the budget.
        remove: share of the units to remove, where that was the budget.
        macs: share of the multiply-adds to keep, where that was the budget.
        time_budget: share of the time to keep, where that was the budget.
        relative_to: the part of the network whose largest score is the reference.
        score: name of what units were compared by; |w| without this key.
        seed: seed of the random control, or of random scores; null without one.
        epochs_between: epochs of training after each pruning.
        units_before: units of the network before.
        units_after: units of the network after; null in a dry run.
        rounds: the rounds.
        accuracy_before: accuracy on the test images before, if the network is a classifier.
        accuracy_after: accuracy on the test images after.
        mean_iou_before: mean IoU on the test images before, if the network segments.
        mean_iou_after: mean IoU on the test images after.
        psnr_before: PSNR on the test images before, in decibels, if the network deblurs.
        psnr_after: PSNR on the test images after, in decibels.
        time: times of the forward pass before and after, where time was the budget.
        input: sizes (batch, channels, height, width) of the image that multiply-adds are counted for; null where
            nothing tells.
        multiply_adds_before: multiply-adds of the forward pass before; null where the input's size is unknown.
        bytes_before: size of the file that was pruned, or that a model in memory would make.
        bytes_after: size of the file written; null in a dry run.
        output: path of the checkpoint written; null where none was.
    """

    units: Count | None
    remove: Share | None
    macs: Share | None
    time_budget: Share | None
    relative_to: RelativeTo
    score: str = MAGNITUDE
    seed: int | None
    epochs_between: Size
    units_before: Count
    units_after: Count | None
    rounds: tuple[Round, ...]
    accuracy_before: Share | None
    accuracy_after: Share | None
    mean_iou_before: Share | None = None
    mean_iou_after: Share | None = None
    psnr_before: Positive | None = None
    psnr_after: Positive | None = None
    time: ForwardTimes | None = None
    input: tuple[Size, Size, Size, Size] | None
    multiply_adds_before: Count | None
    bytes_before: Count
    bytes_after: Count | None
    output: Path | None


def prune_in_rounds(
    checkpoint: Checkpoint,
    rule: Rule,
    *,
    rounds: int,
    epochs_between: int,
    data: Path,
    output: Path,
    options: TrainingOptions | None = None,
    layout: Layout | None = None,
    crops: Crops | None = None,
    score: Score | None = None,
    split: Split = "train",
    size: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Iteration:
    """Prune to a budget in rounds, train after each, and write the last network.

    Every round leaves its pruned and its trained network beside ``output``, with the log and the state of its training.

    Args:
        checkpoint: the network; it is not changed.
        rule: the budget; each round keeps the same share of what the one before it left.
        rounds: number of rounds.
        epochs_between: epochs of training after each pruning.
        data: folder with images to learn from, and test images to measure on.
        output: file to write in the end; the files of the rounds are named after it.
        options: of the training; its ``epochs`` do not count. If omitted, those that ``TrainingOptions`` has.
        layout: of ``data``; default: found as by ``open_dataset``.
        crops: the parts of pictures that a network for segmentation or deblurring learns from.
        score: a score of your own, as in ``daukit.prune``, in the place of that which the rule names.
        split: images of ``data`` that count for ``score="taylor"``.
        size: (height, width) of the images by which cost is counted, where the checkpoint does not tell them.
        resume: go on with a run that was stopped.
        overwrite: replace the files that exist.
        dry_run: only check, and tell the budgets of the rounds.
        model: as in ``daukit.load``.
        device: where to run the networks.
        on_progress: told of progress.

    Raises:
        TypeError: a number is none.
        ValueError: the rule is no budget or cannot be met, there is no round or no epoch, or ``layout`` or ``crops``
            are of another task.
        CheckpointError: the network cannot be built, or there is no run to go on with, or another one.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        DaukitError: a training diverges.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    check_type(epochs_between, is_whole, "epochs_between must be a whole number")
    if epochs_between < 1:
        raise ValueError(f"epochs_between must be at least 1, got {epochs_between}")
    scoring = scoring_of(rule, score, data, split, layout)
    rule = replace(rule, score=scoring.name)
    before = sum(_units_of(checkpoint).values())
    rules = rounds_of(rule, before, rounds)
    chosen = replace(options or TrainingOptions(), epochs=epochs_between)
    plan = plan_of(checkpoint, rules, chosen, output, data, split, layout, crops or Crops())
    check_files(plan, output, checkpoint.path, resume=resume, overwrite=overwrite)
    where: dict[str, Any] = {"model": model, "device": device}
    # All that can be refused is refused now, not after the first round's work.
    prepare_training(
        data, plan.files[0].trained, Recipe(chosen, **plan.changes), initial_checkpoint=checkpoint, initial_model=model,
        keeping=Keeping(overwrite=True), device=device,
    )  # fmt: skip
    told: dict[str, Any] = {"rounds": tuple(_round(plan, number) for number in range(1, rounds + 1))}
    if not dry_run:
        if not resume:
            for path in (path for files in plan.files for path in files.all):
                path.unlink(missing_ok=True)  # by overwrite: what an older run has left is no part of this one
        parts = stages(on_progress, rounds)
        last, told = _run(checkpoint, plan, scoring, data=data, size=size, resume=resume, parts=parts, **where)
        if rule.time_budget is not None:
            told["time"] = time_checkpoints(checkpoint, last, size=size, **where)
        told |= {"bytes_after": write(last, output, overwrite=overwrite), "output": output}
    cost = cost_of_checkpoint(checkpoint, _units_of(checkpoint), model, size)
    nothing = dict.fromkeys(("units_after", "accuracy_before", "accuracy_after", "bytes_after", "output"))
    asked = {name: getattr(rule, name) for name in ("units", "remove", "macs", "time_budget", "relative_to", "seed")}
    return Iteration(
        **asked, **{**nothing, **told}, score=rule.score, epochs_between=epochs_between, units_before=before,
        input=cost.input, multiply_adds_before=cost.multiply_adds,
        bytes_before=stored_bytes(checkpoint) if checkpoint.file_size is None else checkpoint.file_size,
    )  # fmt: skip


def _run(
    checkpoint: Checkpoint,
    plan: Plan,
    scoring: Scoring,
    *,
    data: Path,
    size: tuple[int, int] | None,
    resume: bool,
    parts: Iterator[Progress | None],
    model: str | None,
    device: str,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Go through the rounds, but for those that a stopped run has done; the last network, and what to tell."""
    evaluate = Evaluator(data, layout=scoring.layout, model=model, device=device)
    now, done = checkpoint, []
    before = named(evaluate(checkpoint), "_before")
    for number, files in enumerate(plan.files, start=1):
        progress = next(parts)
        pruned, trained = plan.found(number, now.digest) if resume else (None, None)
        if pruned is None:
            choice = choose(checkpoint, now, plan.rules[number - 1], scoring, size=size, model=model, device=device)
            pruned = write_pruned(choice.applied(now, plan.arguments_of(number)), files.pruned)
        lost = named(evaluate(pruned), "_pruned")
        if trained is None:
            run = prepare_training(
                data, files.trained, Recipe(plan.options_of(number), **plan.changes), initial_checkpoint=pruned,
                initial_model=model,
                keeping=Keeping(overwrite=True, resume=resume and files.training.state.exists()), device=device,
            )  # fmt: skip
            run_training(run, on_progress=progress)
            trained = read(files.trained)
        now = trained
        done.append(replace(_round(plan, number), **lost, **_measured(now, files.trained, model, size)))
    return now, {"rounds": tuple(done), "units_after": done[-1].units, **before, **named(done[-1], "_after")}


def _round(plan: Plan, number: int) -> Round:
    """A round that is only planned."""
    rule = plan.rules[number - 1]
    keep = next(value for value in (rule.units, rule.macs, rule.time_budget) if value is not None)
    return Round(
        round=number, keep=keep, units=None, multiply_adds=None, accuracy_pruned=None, accuracy=None, file=None
    )  # fmt: skip


def _measured(network: Checkpoint, file: Path, model: str | None, size: tuple[int, int] | None) -> dict[str, Any]:
    """What a round came to."""
    units, figures = _units_of(network), network.header.history[-1]["arguments"]
    return {
        "units": sum(units.values()),
        "multiply_adds": cost_of_checkpoint(network, units, model, size).multiply_adds,
        "file": file,
        **{name: figures[f"test_{name}"] for name in HEADLINES if f"test_{name}" in figures},
    }


def _units_of(checkpoint: Checkpoint) -> dict[str, int]:
    return {name: checkpoint.layer(name).weight.numel() for name in checkpoint.layer_names}
