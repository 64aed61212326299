"""The loop over epochs and steps. It knows no task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.checkpoint import history_entry
from daukit.datasets import Dataset
from daukit.errors import CheckpointError, DaukitError, in_words_of_caller
from daukit.evaluation import evaluate
from daukit.files import write_atomic
from daukit.models import record_of
from daukit.nn import project_displacements
from daukit.tasks.task import Headline, Result, Task
from daukit.training.batches import Batches
from daukit.training.log import EpochResult, history_arguments, log_bytes
from daukit.training.optimizers import make_optimizer, set_rates
from daukit.training.options import TrainingOptions
from daukit.training.settling import check_settling, hold, snap_layers
from daukit.training.state import identity, restore_state, state_bytes
from daukit.transforms import MirrorAndShift

_ABSURD = 1e3
"""A network has diverged when its loss is this many times the loss of guessing."""


def train(
    model: nn.Module,
    task: Task[Result],
    train_set: Dataset,
    test_set: Dataset,
    options: TrainingOptions,
    *,
    resume_path: Path,
    log_path: Path,
    resume: bool = False,
    resume_from: Path | None = None,
    source: str | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int, int, float], None] | None = None,
    on_epoch: Callable[[nn.Module, list[EpochResult]], None] | None = None,
) -> list[EpochResult]:
    """Train ``model``, which carries a record with preprocessing, in place; leave it in eval mode on the CPU.

    After every epoch the log gets a line and ``resume_path`` the whole state of training. With ``options.snap_at``
    displacements become whole on the way. Layers that read at whole pixels already learn displacements through the
    rounding, unless ``hold`` was called before, and are rounded in the end.

    Args:
        model: from ``create_model`` or ``load``, its record's preprocessing set.
        task: what to train it for.
        train_set: images to learn from.
        test_set: images to measure on after every epoch; nothing is chosen by them here.
        options: how to train.
        resume_path: state of training, replaced after every epoch.
        log_path: JSON lines, one ``EpochResult`` per epoch.
        resume: go on with a run that was stopped, from ``resume_path``.
        resume_from: go on from this state instead, which is not changed.
        source: digest of the file that the model was loaded from, for its history.
        device: where to train.
        on_step: called with (epoch, step, steps per epoch, loss).
        on_epoch: called with the network and the results so far, when an epoch and its state and log are written, and
            when a state was restored; ``keep_checkpoints`` makes such a function.

    Returns:
        One result per epoch, those before a resume included.

    Raises:
        CheckpointError: the state to go on from is damaged, belongs to another run, or has more epochs than asked for.
        DataError: the network cannot take the images, or has no score for a label.
        ValueError: displacements shall become whole, and the network has none that can.
        DaukitError: the loss is no longer finite, or absurd.
    """
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise ValueError("train() needs a model whose record has preprocessing: build it with create_model and set it")
    if options.snap_at is not None:
        check_settling(model)
    for images in (train_set, test_set):
        task.check_fits(model.to(device).eval(), images, device)
    optimizer = make_optimizer(model, options)
    batches = Batches(
        train_set, options.batch_size, MirrorAndShift(options.mirror, options.shift), options.seed, device
    )
    run = identity(options, record, train_set, source)

    def publish() -> None:
        write_atomic(log_path, log_bytes(results), overwrite=True)
        if on_epoch is not None:
            on_epoch(model, results)

    results: list[EpochResult] = []
    if resume:
        results = _resume(model, optimizer, resume_from or resume_path, run, task.headline, options)
        if options.is_whole(len(results)):
            snap_layers(model, optimizer)
        # A run may have been killed when an epoch's state was written and its log was not.
        publish()
    for epoch in range(len(results), options.epochs):
        started = time.perf_counter()
        loss = _train_epoch(model, task, optimizer, batches, options, epoch=epoch, on_step=on_step)
        tested = evaluate(model, task, test_set, device=device)
        _check_sane(loss, tested.loss, task.guessing_loss(train_set.info), epoch, options)
        seconds, headline = round(time.perf_counter() - started, 3), task.headline
        lr, score = options.lr * options.rate(epoch), headline.of(tested)
        results.append(EpochResult(epoch + 1, lr, loss, tested.loss, score, seconds, headline.name))
        write_atomic(resume_path, state_bytes(model, optimizer, results, run), overwrite=True)
        publish()
    hold(model)  # those that learnt through the rounding
    model.cpu().eval()
    record.history.append(history_entry("train", history_arguments(options, results), source))
    return results


def absurd_loss(guessing: float) -> float:
    """The loss beyond which a network has diverged, if guessing has a loss of ``guessing``."""
    return _ABSURD * guessing


def _resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    path: Path,
    run: dict[str, Any],
    headline: Headline,
    options: TrainingOptions,
) -> list[EpochResult]:
    results = restore_state(model, optimizer, path, run, headline)
    if len(results) > options.epochs:
        epochs = in_words_of_caller("epochs", "--epochs")
        raise CheckpointError(
            f"{path}: {len(results)} epochs are done, and {epochs} asks for {options.epochs}; ask for more to go on"
        )
    return results


def _check_sane(loss: float, test_loss: float, guessing: float, epoch: int, options: TrainingOptions) -> None:
    """Raise ``DaukitError`` if a loss is not finite or absurd, before the state of such an epoch is kept."""
    if not math.isfinite(test_loss):
        raise _diverged(f"the loss on the test images is {test_loss} after epoch {epoch + 1}", options)
    if loss > absurd_loss(guessing):
        said = f"the loss rose to {loss:.3g} in epoch {epoch + 1}, and guessing has one of {guessing:.2g}"
        raise _diverged(f"{said}: the training has diverged", options)


def _diverged(what: str, options: TrainingOptions) -> DaukitError:
    lr, factor = in_words_of_caller("lr", "--lr"), in_words_of_caller("mu_lr_factor", "--mu-lr-factor")
    return DaukitError(
        f"{what}; lower the learning rate ({lr}, now {options.lr:g}) or {factor} (now {options.mu_lr_factor:g})"
    )


def _train_epoch(
    model: nn.Module,
    task: Task[Result],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    options: TrainingOptions,
    *,
    epoch: int,
    on_step: Callable[[int, int, int, float], None] | None,
) -> float:
    """Pass once over the data; return the mean loss over its images."""
    model.train()
    total, steps = 0.0, len(batches)
    for step, batch in enumerate(batches.epoch(epoch)):
        if options.is_whole(epoch + (step + 1) / steps) > options.is_whole(epoch + step / steps):
            snap_layers(model, optimizer)
        set_rates(optimizer, options.rate(epoch + step / steps))
        loss = task.loss(model, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise _diverged(f"the loss became {value} at epoch {epoch + 1}, step {step + 1}", options)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        project_displacements(model)
        total += value * len(batch)
        if on_step is not None:
            on_step(epoch, step, steps, value)
    return total / len(batches.dataset)
