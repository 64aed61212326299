"""What a training tells while it runs: words for a progress bar, and curves for TensorBoard."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from daukit.errors import DaukitError, OutputError
from daukit.results import Progress
from daukit.training import EpochResult, TrainingOptions

if TYPE_CHECKING:
    from typing_extensions import Self

_PATIENCE = 1.0
"""Seconds over which a speed is taken, at least: single steps differ too much to be read."""


class StepWords:
    """Tells a progress bar of every step: the loss, the learning rate and the speed.

    Args:
        options: of the training.
        images: to learn from in an epoch.
        on_progress: is told.
        clock: the time in seconds.
    """

    def __init__(
        self,
        options: TrainingOptions,
        images: int,
        on_progress: Progress,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._options, self._images, self._on_progress, self._clock = options, images, on_progress, clock
        self._epoch, self._start, self._since = -1, 0, 0.0
        self._speed = ""

    def __call__(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Tell of the step ``step`` of ``steps``, which is done."""
        options = self._options
        self._measure(epoch, step + 1)
        rate = options.lr * options.rate(epoch + step / steps)
        self._on_progress(
            (epoch * steps + step + 1) / (options.epochs * steps),
            f"epoch {epoch + 1}/{options.epochs}, loss {loss:.3f}, rate {rate:.3g}{self._speed}",
        )

    def _measure(self, epoch: int, done: int) -> None:
        """Find the speed from an epoch's first step on: what lies between two epochs is no step."""
        now = self._clock()
        if epoch != self._epoch:
            self._epoch, self._since, self._start, self._speed = epoch, now, done, ""
        elif now - self._since >= _PATIENCE:
            size = self._options.batch_size
            seen = min(done * size, self._images) - min(self._start * size, self._images)
            self._speed = f", {seen / (now - self._since):,.0f} images/s"
            self._since, self._start = now, done


class Board:
    """Writes curves of a training for TensorBoard; a context.

    A run that is resumed goes on with its curves: what they have of later steps is dropped.

    Args:
        folder: of the run; made if it is not there.
        options: of the training.

    Raises:
        DaukitError: TensorBoard is not installed.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, options: TrainingOptions) -> None:
        self._writer_of, self._options, self._folder = _summary_writer(), options, folder
        self._writer: Any = None
        self._steps = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Add the loss and the learning rate of a step."""
        done, self._steps = epoch * steps + step + 1, steps
        if self._writer is None:
            self._writer = self._writer_of(str(self._folder), purge_step=done)
        self._writer.add_scalar("train/loss", loss, done)
        self._writer.add_scalar("train/rate", self._options.lr * self._options.rate(epoch + step / steps), done)

    def epoch(self, _: object, results: list[EpochResult]) -> None:
        """Add what the last epoch came to, unless it is one of before this run was resumed."""
        if self._writer is not None:
            last = results[-1]
            self._writer.add_scalar("test/loss", last.test_loss, last.epoch * self._steps)
            self._writer.add_scalar(f"test/{last.headline}", last.test_score, last.epoch * self._steps)
            if last.moves is not None:
                self._writer.add_scalar("units/moved", last.moves.mean, last.epoch * self._steps)
                self._writer.add_scalar("units/beyond_a_pixel", last.moves.beyond_a_pixel, last.epoch * self._steps)
                self._writer.add_scalar("units/at_limit", last.moves.at_limit, last.epoch * self._steps)


def in_turn(*functions: Callable[..., None] | None) -> Callable[..., None]:
    """A function that calls those that are not None, in their order, with the arguments that it gets."""
    there = [function for function in functions if function is not None]

    def call(*arguments: Any) -> None:
        for function in there:
            function(*arguments)

    return call


def _summary_writer() -> Any:
    """TensorBoard's writer, as torch has it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DaukitError(f"TensorBoard cannot be imported ({error}); pip install tensorboard, or drop it") from None
    return SummaryWriter
