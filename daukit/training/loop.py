"""The loop over epochs and steps. It knows no task."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from daukit.checkpoint import history_entry
from daukit.datasets import Batch, Dataset
from daukit.distributed import ALONE, Ranks
from daukit.errors import CheckpointError, DaukitError, in_words_of_caller
from daukit.evaluation import evaluate
from daukit.files import write_atomic
from daukit.models import record_of
from daukit.tasks.task import Result, Task
from daukit.training.averaging import MovingAverage
from daukit.training.batches import Batches
from daukit.training.log import EpochResult, history_arguments, log_bytes
from daukit.training.moves import MoveTracker
from daukit.training.normalizing import synchronized
from daukit.training.optimizers import can_be_prolonged, make_optimizer, set_rates
from daukit.training.options import TrainingOptions
from daukit.training.pace import remarks
from daukit.training.sanity import check_sane, diverged
from daukit.training.settling import check_settling, hold, snap_layers
from daukit.training.state import PartialEpoch, identity, restore_state, state_bytes
from daukit.training.stepping import RunningLoss, check_shares, learn
from daukit.transforms import MirrorAndShift, is_cropped


class TrainingStoppedError(DaukitError):
    """A training ended because its caller asked for it; unless it did no step, its state is written."""


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
    save_state_every: int | None = None,
    source: str | None = None,
    notes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int, int, float], None] | None = None,
    on_epoch: Callable[[nn.Module, list[EpochResult]], None] | None = None,
    on_save: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    ranks: Ranks = ALONE,
) -> list[EpochResult]:
    """Train ``model``, which carries a record with preprocessing, in place; leave it in eval mode on the CPU.

    After every epoch the log gets a line and ``resume_path`` the whole state of training. With ``options.snap_at``
    displacements become whole on the way. Layers that read at whole pixels already learn displacements through the
    rounding, unless ``hold`` was called before, and are rounded in the end.

    Several processes learn together: each calls this with the same arguments, reads its share of every batch, and ends
    with the same network and results; the first one alone writes.

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
        save_state_every: write the state after every so many steps of the run, too.
        source: digest of the file that the model was loaded from, for its history.
        notes: what stands in the history beside the options.
        device: where to train.
        on_step: called with (epoch, step, steps per epoch, loss); on a GPU, with the last loss that was read.
        on_epoch: called with the network and the results so far, when an epoch and its state and log are written, and
            when a state was restored; ``keep_checkpoints`` makes such a function.
        on_save: called with (epochs done, steps of the next one done) when a state was written or restored.
        should_stop: asked after every step and every batch of an evaluation; True, in any process, ends the training
            with its state.
        ranks: the processes that learn together.

    Returns:
        One result per epoch, those before a resume included.

    Raises:
        CheckpointError: the state to go on from is damaged, belongs to another run, or has more epochs than asked for.
        DataError: the network cannot take the images, or has no score for a label.
        ValueError: displacements shall become whole, and the network has none that can; or a batch has fewer images
            than there are processes.
        LostProcessError: another process ended, or cannot be reached.
        TrainingStoppedError: ``should_stop`` returned True.
        DaukitError: the loss is no longer finite, or absurd.
    """
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise ValueError("train() needs a model whose record has preprocessing: build it with create_model and set it")
    check_shares(options, ranks)
    if options.snap_at is not None:
        check_settling(model)
    for images in (train_set, test_set):
        task.check_fits(model.to(device).eval(), images, device)
    change = MirrorAndShift(options.mirror and not is_cropped(train_set), options.shift)
    ranks.take_from_first([*model.parameters(), *model.buffers()])
    batches = Batches(train_set, options.batch_size, change, options.seed, device, ranks)
    training = _Training(
        model, task, test_set, options, device, ranks, batches=batches,
        optimizer=make_optimizer(model, options, len(batches)),
        average=None if options.ema is None else MovingAverage(model, options.ema),
        moves=MoveTracker(model), is_new=source is None and not record.history,
        run=identity(options, record, train_set, source, is_prolongable=can_be_prolonged(model, options)),
        resume_path=resume_path, log_path=log_path, save_state_every=save_state_every,
        on_step=on_step, on_epoch=on_epoch, on_save=on_save, should_stop=should_stop or (lambda: False),
    )  # fmt: skip
    partial = training.restore(resume_from or resume_path) if resume else None
    while len(training.results) < options.epochs:
        training.epoch(partial)
        partial = None
    if training.average is not None:
        training.average.settle()
    hold(model)  # those that learnt through the rounding
    model.cpu().eval()
    record.history.append(history_entry("train", history_arguments(options, training.results, notes), source))
    return training.results


@dataclass
class _Training(Generic[Result]):
    """A training that goes on: what it needs, and how far it is."""

    model: nn.Module
    task: Task[Result]
    test_set: Dataset
    options: TrainingOptions
    device: str | torch.device
    ranks: Ranks
    optimizer: torch.optim.Optimizer
    batches: Batches
    average: MovingAverage | None
    moves: MoveTracker
    is_new: bool
    run: dict[str, Any]
    resume_path: Path
    log_path: Path
    save_state_every: int | None
    on_step: Callable[[int, int, int, float], None] | None
    on_epoch: Callable[[nn.Module, list[EpochResult]], None] | None
    on_save: Callable[[int, int], None] | None
    should_stop: Callable[[], bool]
    results: list[EpochResult] = field(default_factory=list)

    def restore(self, path: Path) -> PartialEpoch | None:
        """Go back to a state; return how far its last epoch is, unless that is done."""
        state = restore_state(self.model, self.optimizer, path, self.run, self.task.headline, self.average, self.moves)
        self.results, partial, per_epoch = state.results, state.partial, len(self.batches)
        done, steps = len(self.results), partial.steps if partial else 0
        if done + bool(steps) > self.options.epochs:
            epochs, asked = in_words_of_caller("epochs", "--epochs"), self.options.epochs
            more = f" and {steps} steps" if steps else ""
            raise CheckpointError(
                f"{path}: {done} epochs{more} are done, and {epochs} asks for {asked}; ask for more to go on"
            )
        if steps > per_epoch:
            raise CheckpointError(f"{path}: says that {steps} of {per_epoch} steps are done; the file is damaged")
        if self.options.is_whole(done + steps / per_epoch):
            snap_layers(self.model, self.optimizer)
        self._tell_saved(partial)
        if done:
            # A run may have been killed when an epoch's state was written and its log was not.
            self._publish()
        return partial

    def epoch(self, partial: PartialEpoch | None) -> None:
        """Pass once over the images, or over the rest of them, measure and write."""
        number = len(self.results)
        if partial is None:
            self.moves.begin_epoch()
        partial = self._train(number, partial or PartialEpoch(0, 0.0, 0.0))
        before, started = partial.seconds, time.perf_counter()
        try:
            with self._shown():
                tested = evaluate(
                    self.model, self.task, self.test_set, device=self.device, ranks=self.ranks,
                    on_batch=lambda *_: self._stop_if_asked(),
                )  # fmt: skip
        except TrainingStoppedError:
            self._save(partial)
            raise
        loss = partial.loss / len(self.batches.dataset)
        check_sane(loss, tested.loss, self.task.guessing_loss(self.batches.dataset.info), number, self.options)
        seconds, headline = round(before + time.perf_counter() - started, 3), self.task.headline
        lr, score = self.options.lr * self.options.rate(number), headline.of(tested)
        moves = self.moves.measure()
        self.results.append(EpochResult(number + 1, lr, loss, tested.loss, score, seconds, headline.name, moves))
        self._save()
        self._publish()
        if self.ranks.is_writer:
            for words in remarks(self.results, self.options, len(self.batches), is_new=self.is_new):
                warnings.warn(words, stacklevel=3)  # this and train(), which its caller reads of
        if number + 1 < self.options.epochs:
            self._stop_if_asked()

    def _train(self, number: int, partial: PartialEpoch) -> PartialEpoch:
        """Do the steps of an epoch that are left; return how far it is then."""
        self.model.train()
        started, every = time.perf_counter() - partial.seconds, self.save_state_every
        batches, per_epoch = self.batches.epoch(number, partial.steps, partial.random), len(self.batches)
        steps, losses = partial.steps, RunningLoss(partial.loss, self.device)

        def here() -> PartialEpoch:
            self._check_finite(losses.read(), number, steps)
            return PartialEpoch(steps, losses.total, round(time.perf_counter() - started, 3), batches.random)

        for batch in batches:
            loss = self._step(batch, number, steps)
            steps += 1
            self._check_finite(losses.add(loss, self.batches.images(steps - 1)), number, steps)
            if self.on_step is not None:
                self.on_step(number, steps - 1, per_epoch, losses.last)
            stop = self.ranks.any(self.should_stop())
            if stop or (every is not None and (number * per_epoch + steps) % every == 0):
                self._save(here())
            if stop:
                raise self._stopped()
        return here()

    def _step(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """Learn from a batch, or from this process's share of one; return the loss of the whole."""
        self._prepare(epoch, step)
        if not self.ranks.is_alone:
            # Noise of the network's own, as dropout's, differs between processes, and needs no place in a state.
            number = (self.options.seed * 100_003 + epoch) * len(self.batches) + step
            torch.manual_seed((number * self.ranks.size + self.ranks.rank) % 2**63)
        with synchronized(self.model, self.ranks) if self.options.sync_batch_norm else nullcontext():
            loss = learn(self.model, self.task, self.optimizer, batch, self.options, self.ranks)
        if self.average is not None:
            self.average.update()
        return loss

    def _prepare(self, epoch: int, step: int) -> None:
        """Round displacements where it is time, and set the rates of a step."""
        steps, options = len(self.batches), self.options
        if options.is_whole(epoch + (step + 1) / steps) > options.is_whole(epoch + step / steps):
            snap_layers(self.model, self.optimizer)
            if self.average is not None:
                self.average.restart()  # before, it is another network
        progress = epoch + step / steps
        set_rates(self.optimizer, options.rate(progress), options.mu_rate(progress))

    def _check_finite(self, losses: list[float], epoch: int, steps: int) -> None:
        """Raise ``DaukitError`` if one of the last losses, up to that of step ``steps``, is not finite."""
        for step, loss in enumerate(losses, steps - len(losses) + 1):
            if not math.isfinite(loss):
                raise diverged(f"the loss became {loss} at epoch {epoch + 1}, step {step}", self.options)

    def _shown(self) -> AbstractContextManager[None]:
        """Inside the block, the network is the one that is measured and kept."""
        return nullcontext() if self.average is None else self.average.shown()

    def _save(self, partial: PartialEpoch | None = None) -> None:
        if self.ranks.is_writer:
            data = state_bytes(self.model, self.optimizer, self.results, self.run, partial, self.average, self.moves)
            write_atomic(self.resume_path, data, overwrite=True)
        self.ranks.wait()  # what is safe is safe for all of them: none ends before
        self._tell_saved(partial)

    def _tell_saved(self, partial: PartialEpoch | None) -> None:
        if self.on_save is not None:
            self.on_save(len(self.results), partial.steps if partial else 0)

    def _publish(self) -> None:
        if self.ranks.is_writer:
            write_atomic(self.log_path, log_bytes(self.results), overwrite=True)
        if self.on_epoch is not None:
            with self._shown():
                self.on_epoch(self.model, self.results)

    def _stop_if_asked(self) -> None:
        if self.ranks.any(self.should_stop()):
            raise self._stopped()

    def _stopped(self) -> TrainingStoppedError:
        how = in_words_of_caller("resume=True", "--resume")
        return TrainingStoppedError(f"{self.resume_path}: the training was stopped; pass {how} to go on with it")
