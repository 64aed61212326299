"""The files of a run: their names, and the checkpoints that it keeps on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from daukit.checkpoint import from_model, history_entry, write
from daukit.training.options import EpochResult, TrainingOptions, history_arguments

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class RunFiles:
    """The files of the run that makes ``output``, all named after it: two runs may share a folder.

    Attributes:
        output: the checkpoint at the end.
    """

    output: Path

    @property
    def state(self) -> Path:
        """All that is needed to go on."""
        return self._beside(".resume" + _SUFFIX)

    @property
    def log(self) -> Path:
        """JSON lines, one an epoch."""
        return self._beside(".jsonl")

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the best test accuracy."""
        return self._beside(".best" + _SUFFIX)

    @property
    def older_state(self) -> Path:
        """Where daukit 0.1 kept the state, one for all runs of a folder."""
        return self.output.with_name("resume" + _SUFFIX)

    def epoch(self, number: int) -> Path:
        """The checkpoint after ``number`` epochs."""
        return self._beside(f".epoch{number:04d}" + _SUFFIX)

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name.removesuffix(_SUFFIX) + ending)


def keep_checkpoints(
    files: RunFiles,
    options: TrainingOptions,
    *,
    best: bool = False,
    every: int | None = None,
    source: str | None = None,
) -> Callable[[nn.Module, list[EpochResult]], None]:
    """What ``train(on_epoch=...)`` takes in order to keep checkpoints on the way, replacing those that are there.

    A run that is resumed writes those of its last epoch again, so that none is missing after a kill.

    Args:
        files: where to.
        options: of the training, for the history of the checkpoints.
        best: keep the epoch of the best test accuracy, the first of several. It was chosen by the test images, so its
            accuracy on them is too good a guess for other images.
        every: keep every epoch that this divides.
        source: digest of the file that the model was loaded from, for the history.
    """

    def keep(model: nn.Module, results: list[EpochResult]) -> None:
        last = results[-1]
        arguments = {**history_arguments(options, results), "epoch": last.epoch}
        if every and last.epoch % every == 0:
            _write(model, files.epoch(last.epoch), arguments, source)
        if best and all(earlier.test_accuracy < last.test_accuracy for earlier in results[:-1]):
            _write(model, files.best, {**arguments, "chosen_by": "test accuracy"}, source)

    return keep


def _write(model: nn.Module, path: Path, arguments: dict[str, Any], source: str | None) -> None:
    checkpoint = from_model(model)
    history = [*checkpoint.header.history, history_entry("train", arguments, source)]
    write(replace(checkpoint, header=replace(checkpoint.header, history=history)), path, overwrite=True)
