"""Train a network on a folder of images.

``prepare_training`` refuses before the first step what can be refused; ``run_training`` trains and writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.checkpoint import Checkpoint, from_model, save
from daukit.datasets import Dataset, fitted
from daukit.distributed import ALONE, Ranks
from daukit.errors import in_words_of_caller, naming
from daukit.results import Progress
from daukit.tasks import make_task, preprocessing_of
from daukit.training import (
    EpochResult,
    Recipe,
    RunFiles,
    check_files,
    check_save_every,
    check_settling,
    keep_checkpoints,
    train,
)
from daukit.transforms import for_training
from daukit.workflows.adapt_layers import Adapted
from daukit.workflows.train_adapted import adapted_network
from daukit.workflows.train_networks import loaded_network, new_network
from daukit.workflows.train_progress import Board, StepWords, in_turn
from daukit.workflows.train_runs import Keeping, TrainingResult, TrainingRun
from daukit.workflows.train_sets import DEFAULT_MODEL, AnyTask, check_changes, open_sets, task_to_train


def prepare_training(
    data: Path,
    output: Path,
    recipe: Recipe,
    *,
    initial_checkpoint: Checkpoint | None = None,
    initial_model: str | None = None,
    classes: Path | None = None,
    keeping: Keeping | None = None,
    device: str = "cpu",
) -> TrainingRun:
    """Make everything ready for a training and check all that can be checked before its first step.

    Args:
        data: folder with images to learn from, and test images to measure on.
        output: the checkpoint to write; all other files are named after it.
        recipe: what to train, and how.
        initial_checkpoint: start from this network; if the recipe names another one, from its layers, as in
            ``adapted_network``.
        initial_model: its network, as ``model`` in ``daukit.load``.
        classes: file with the name of a class per line, as in ``open_dataset``.
        keeping: what to keep on the way; default: the log and the state.
        device: where to train.

    Raises:
        ValueError: ``output`` is a state's name, ``save_every`` divides no epoch, ``classes`` or options of a network
            are given although the initial checkpoint says them, the recipe starts from a file and none is given, or
            displacements shall become whole and the network has none.
        TypeError: the network takes no such option.
        CheckpointError: there is no run to go on with, or it has reached its end; or the initial checkpoint is damaged,
            or does not fit.
        DataError: the data are missing or damaged, or do not fit the network.
        OutputError: a file exists already, or cannot be written.
    """
    keeping, options, files = keeping or Keeping(), recipe.options, RunFiles(output)
    resume_from = check_run(files, recipe, keeping, initial_checkpoint, classes)
    is_loaded = initial_checkpoint is not None and recipe.model is None
    purpose = task_to_train(recipe.model, recipe.config, initial_checkpoint if is_loaded else None)
    check_changes(purpose, options, crop=recipe.crop, scale=recipe.scale, layout=recipe.layout)
    train_set, test_set = open_sets(
        purpose, data, options, crop=recipe.crop, scale=recipe.scale, layout=recipe.layout, classes=classes,
        channel_order=_channel_order(recipe, initial_checkpoint),
    )  # fmt: skip
    torch.manual_seed(options.seed)
    start, called = _network(recipe, train_set, initial_checkpoint, initial_model)
    network = start.network
    if options.snap_at is not None:
        check_settling(network, called)
    task = make_task(purpose, preprocessing_of(network, called), train_set.info)
    train_set = for_training(train_set, task.preprocessing, options.part or "area", options.mirror)
    test_set = fitted(test_set, task.preprocessing)
    _check_network(network, called, task, (train_set, test_set), data, device)
    source = None if initial_checkpoint is None else initial_checkpoint.digest
    return TrainingRun(
        network=network, called=called, task=task, source=source, train_set=train_set, test_set=test_set,
        recipe=recipe, files=files, resume_from=resume_from, keeping=keeping, device=device, new=start.new,
        left=start.left, scaled=start.scaled, notes=start.notes,
    )  # fmt: skip


def check_run(
    files: RunFiles,
    recipe: Recipe,
    keeping: Keeping,
    initial_checkpoint: Checkpoint | Path | None = None,
    classes: Path | None = None,
) -> Path | None:
    """Refuse what can be refused of a training before a file is read.

    Arguments are those of ``prepare_training``; of the initial checkpoint the path is enough.

    Returns:
        The state to go on from; None for a new run.

    Raises:
        ValueError: ``save_every`` divides no epoch, a file to start from is missing, or the initial checkpoint says
            what is given.
        CheckpointError: there is no run to go on with, or it has reached its end.
        OutputError: a file exists already, or cannot be written.
    """
    check_save_every(keeping.save_every, recipe.options.epochs)
    start = initial_checkpoint.path if isinstance(initial_checkpoint, Checkpoint) else initial_checkpoint
    resume_from = check_files(
        files, recipe.options, resume=keeping.resume, best=keeping.best, every=keeping.save_every,
        overwrite=keeping.overwrite, sources=[path for path in (start, classes) if path is not None],
    )  # fmt: skip
    if initial_checkpoint is None and recipe.start is not None:
        how = in_words_of_caller("initial_checkpoint", "--initial-checkpoint")
        raise ValueError(f"{recipe.name or 'this recipe'} starts from {recipe.start}; give it as {how}")
    if isinstance(initial_checkpoint, Checkpoint) and recipe.model is None:
        if recipe.config:
            raise ValueError(f"the network of {initial_checkpoint.called} is as it is; drop {', '.join(recipe.config)}")
        if classes is not None and initial_checkpoint.header.preprocessing is not None:
            raise ValueError(f"{initial_checkpoint.called} says what its classes are; drop {classes}")
    return resume_from


def _channel_order(recipe: Recipe, checkpoint: Checkpoint | None) -> str:
    """How pictures are read: as the initial checkpoint expects them, and grey for a new network of one channel."""
    expected = None if checkpoint is None else checkpoint.header.preprocessing
    if expected is None:
        return "gray" if recipe.config.get("in_channels") == 1 else "rgb"
    return expected.channel_order


def _network(recipe: Recipe, images: Dataset, checkpoint: Checkpoint | None, model: str | None) -> tuple[Adapted, str]:
    """The network to train, and what messages call it."""
    if checkpoint is None:
        called = recipe.model or DEFAULT_MODEL
        return Adapted(new_network(called, recipe.config, images)), called
    if recipe.model is None:
        return Adapted(loaded_network(checkpoint, images, model=model)), f"{checkpoint.called}'s network"
    return adapted_network(recipe.model, recipe.config, images, checkpoint, model=model), recipe.model


def _check_network(
    network: nn.Module, called: str, task: AnyTask, sets: tuple[Dataset, Dataset], data: Path, device: str
) -> None:
    """Refuse a network that does not take the images, or that could not be saved."""
    network.to(device).eval()
    for images in sets:
        task.check_fits(network, images, device, network=called, images=f"the images of {data}")
    with naming(called):
        from_model(network)


def run_training(
    run: TrainingRun,
    *,
    on_progress: Progress | None = None,
    on_epoch: Callable[[list[EpochResult]], None] | None = None,
    on_save: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    tensorboard: Path | None = None,
    ranks: Ranks = ALONE,
) -> TrainingResult:
    """Train and write the run's files.

    Several processes train together as in ``daukit.training.train``; the first one alone writes.

    Args:
        run: from ``prepare_training``; its network is trained in place.
        on_progress: told of progress.
        on_epoch: called with the results so far when an epoch is safe, and when a state was restored.
        on_save: called with (epochs done, steps of the next one done) when a state is written or restored.
        should_stop: asked after every step and every batch of an evaluation; True ends the training with its state.
        tensorboard: folder for curves of TensorBoard.
        ranks: the processes that train together.

    Raises:
        CheckpointError: the state to go on from is damaged, belongs to another run, or has more epochs than asked for.
        TrainingStoppedError: ``should_stop`` returned True.
        DaukitError: the loss is no longer finite, or absurd.
        OutputError: a file cannot be written.
    """
    keep = keep_checkpoints(
        run.files, run.options, best=run.keeping.best, every=run.keeping.save_every, source=run.source,
        notes=run.history,
    )  # fmt: skip
    words = None if on_progress is None else StepWords(run.options, len(run.train_set), on_progress)
    tell = None if on_epoch is None else lambda network, results: on_epoch(list(results))
    with nullcontext() if tensorboard is None or not ranks.is_writer else Board(tensorboard, run.options) as board:
        results = train(
            run.network,
            run.task,
            run.train_set,
            run.test_set,
            run.options,
            resume_path=run.files.state,
            log_path=run.files.log,
            resume=run.resume_from is not None,
            resume_from=run.resume_from,
            save_state_every=run.keeping.save_state_every,
            source=run.source,
            notes=run.history,
            device=run.device,
            on_step=in_turn(words, None if board is None else board.step),
            on_epoch=in_turn(tell, keep if ranks.is_writer else None, None if board is None else board.epoch),
            on_save=on_save,
            should_stop=should_stop,
            ranks=ranks,
        )
    size = save(run.network, run.files.output, overwrite=run.keeping.overwrite) if ranks.is_writer else None
    score: dict[str, Any] = {results[-1].headline: results[-1].test_score}
    return replace(
        run.announcement,
        output=run.files.output,
        bytes=size,
        log=run.files.log,
        state=run.files.state,
        epochs=len(results),
        loss=results[-1].test_loss,
        **score,
    )
