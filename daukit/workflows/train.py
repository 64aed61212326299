"""Train a network on a folder of images.

``prepare_training`` refuses before the first step what can be refused; ``run_training`` trains and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.checkpoint import Checkpoint, from_model, save
from daukit.datasets import Dataset, Layout, fitted
from daukit.errors import naming
from daukit.results import Progress
from daukit.tasks import make_task, preprocessing_of
from daukit.training import (
    EpochResult,
    RunFiles,
    TrainingOptions,
    check_files,
    check_save_every,
    check_settling,
    keep_checkpoints,
    train,
)
from daukit.transforms import for_training
from daukit.workflows.train_networks import loaded_network, new_network
from daukit.workflows.train_progress import Board, StepWords, in_turn
from daukit.workflows.train_runs import TrainingResult, TrainingRun
from daukit.workflows.train_sets import DEFAULT_MODEL, AnyTask, check_changes, open_sets, task_to_train


def prepare_training(
    data: Path,
    output: Path,
    options: TrainingOptions,
    *,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    initial_checkpoint: Checkpoint | None = None,
    layout: Layout | None = None,
    classes: Path | None = None,
    crop: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    resume: bool = False,
    best: bool = False,
    save_every: int | None = None,
    save_state_every: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> TrainingRun:
    """Make everything ready for a training and check all that can be checked before its first step.

    Args:
        data: folder with images to learn from, and test images to measure on.
        output: the checkpoint to write; all other files are named after it.
        options: how to train.
        model: a new network: a name of ``daukit.models`` or a factory; default: ``DEFAULT_MODEL``. With
            ``initial_checkpoint`` as in ``daukit.load``.
        config: options of a new network; those that depend on the images are added to a network of daukit's.
        initial_checkpoint: start from this network instead of a new one.
        layout: of ``data``; default: found as by ``open_dataset``.
        classes: file with the name of a class per line, as in ``open_dataset``.
        crop: as in ``open_sets``.
        scale: as in ``open_sets``.
        resume: go on with a run that was stopped.
        best: keep the epoch with the best test accuracy.
        save_every: keep every epoch that this divides.
        save_state_every: write the state after every so many steps, too.
        overwrite: replace the files that exist.
        device: where to train.

    Raises:
        ValueError: ``output`` is a state's name, ``save_every`` divides no epoch, ``classes`` or ``config`` is given
            although the initial checkpoint says it, or displacements shall become whole and the network has none.
        TypeError: the network takes no such option.
        CheckpointError: the network cannot be built or saved, or there is nothing to resume.
        DataError: the data are missing or damaged, or do not fit the network.
        OutputError: a file exists already, or cannot be written.
    """
    files = RunFiles(output)
    check_save_every(save_every, options.epochs)
    start = None if initial_checkpoint is None else initial_checkpoint.path
    sources = [path for path in (start, classes) if path is not None]
    resume_from = check_files(
        files, options, resume=resume, best=best, every=save_every, overwrite=overwrite, sources=sources
    )
    if initial_checkpoint is not None:
        _check_unsaid(initial_checkpoint, config, classes)
    purpose = task_to_train(model, config, initial_checkpoint)
    check_changes(purpose, options, crop=crop, scale=scale, layout=layout)
    expected = initial_checkpoint.header.preprocessing if initial_checkpoint else None
    order = expected.channel_order if expected else "rgb"
    train_set, test_set = open_sets(
        purpose, data, options, crop=crop, scale=scale, layout=layout, classes=classes, channel_order=order
    )
    torch.manual_seed(options.seed)
    if initial_checkpoint is None:
        called = model or DEFAULT_MODEL
        network = new_network(called, config or {}, train_set)
    else:
        called = f"{initial_checkpoint.called}'s network"
        network = loaded_network(initial_checkpoint, train_set, model=model)
    if options.snap_at is not None:
        check_settling(network, called)
    task = make_task(purpose, preprocessing_of(network, called), train_set.info)
    train_set = for_training(train_set, task.preprocessing, options.part or "area", options.mirror)
    test_set = fitted(test_set, task.preprocessing)
    _check_network(network, called, task, (train_set, test_set), data, device)
    return TrainingRun(
        network=network,
        called=called,
        task=task,
        source=None if initial_checkpoint is None else initial_checkpoint.digest,
        train_set=train_set,
        test_set=test_set,
        options=options,
        files=files,
        resume_from=resume_from,
        best=best,
        save_every=save_every,
        save_state_every=save_state_every,
        overwrite=overwrite,
        device=device,
    )


def _check_unsaid(checkpoint: Checkpoint, config: Mapping[str, Any] | None, classes: Path | None) -> None:
    """Refuse what the initial checkpoint says itself."""
    if config:
        raise ValueError(f"the network of {checkpoint.called} is as it is; drop {', '.join(config)}")
    if classes is not None and checkpoint.header.preprocessing is not None:
        raise ValueError(f"{checkpoint.called} says what its classes are; drop {classes}")


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
) -> TrainingResult:
    """Train and write the run's files.

    Args:
        run: from ``prepare_training``; its network is trained in place.
        on_progress: told of progress.
        on_epoch: called with the results so far when an epoch is safe, and when a state was restored.
        on_save: called with (epochs done, steps of the next one done) when a state is written or restored.
        should_stop: asked after every step and every batch of an evaluation; True ends the training with its state.
        tensorboard: folder for curves of TensorBoard.

    Raises:
        CheckpointError: the state to go on from is damaged, belongs to another run, or has more epochs than asked for.
        TrainingStoppedError: ``should_stop`` returned True.
        DaukitError: the loss is no longer finite, or absurd.
        OutputError: a file cannot be written.
    """
    keep = keep_checkpoints(run.files, run.options, best=run.best, every=run.save_every, source=run.source)
    words = None if on_progress is None else StepWords(run.options, len(run.train_set), on_progress)
    tell = None if on_epoch is None else lambda network, results: on_epoch(list(results))
    with nullcontext() if tensorboard is None else Board(tensorboard, run.options) as board:
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
            save_state_every=run.save_state_every,
            source=run.source,
            device=run.device,
            on_step=in_turn(words, board and board.step),
            on_epoch=in_turn(tell, keep, board and board.epoch),
            on_save=on_save,
            should_stop=should_stop,
        )
    size = save(run.network, run.files.output, overwrite=run.overwrite)
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
