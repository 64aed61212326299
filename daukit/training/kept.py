"""The files of a run: their names, checks before it starts, and the checkpoints that it keeps on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from daukit.checkpoint import from_model, history_entry, write
from daukit.errors import CheckpointError, OutputError, in_words_of_caller
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.training.log import EpochResult, best_of, history_arguments
from daukit.training.options import TrainingOptions
from daukit.training.state import read_state

_SUFFIX = ".safetensors"
_STATE = ".resume" + _SUFFIX


@dataclass(frozen=True)
class RunFiles:
    """The files of the run that makes ``output``, all named after it: two runs may share a folder.

    Attributes:
        output: the checkpoint at the end.
    """

    output: Path

    def __post_init__(self) -> None:
        if self.output.name.endswith(_STATE):
            raise ValueError(f"{self.output.name} is the name of a training's state")

    @property
    def state(self) -> Path:
        """All that is needed to go on."""
        return self._beside(_STATE)

    @property
    def log(self) -> Path:
        """JSON lines, one per epoch."""
        return self._beside(".jsonl")

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the best test accuracy."""
        return self._beside(".best" + _SUFFIX)

    @property
    def older_state(self) -> Path:
        """The state of daukit 0.1, one for all runs of a folder."""
        return self.output.with_name("resume" + _SUFFIX)

    def epoch(self, number: int) -> Path:
        """The checkpoint after ``number`` epochs."""
        return self._beside(f".epoch{number:04d}" + _SUFFIX)

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name.removesuffix(_SUFFIX) + ending)


def check_save_every(every: int | None, epochs: int) -> None:
    """Raise ``ValueError`` if no epoch of a run is a multiple of ``every``."""
    if every is not None and every > epochs:
        raise ValueError(f"no epoch of {epochs:,} is a multiple of {every:,}; give {epochs:,} at most")


def check_files(
    files: RunFiles,
    options: TrainingOptions,
    *,
    resume: bool = False,
    best: bool = False,
    every: int | None = None,
    overwrite: bool = False,
    sources: Iterable[Path] = (),
) -> Path | None:
    """Check that a run may write its files, before it starts.

    Args:
        files: of the run.
        options: of the training.
        resume: go on with a run that was stopped.
        best: the run keeps its best epoch.
        every: the run keeps every epoch that this divides.
        overwrite: replace the files that exist.
        sources: what the run reads; none of it is replaced.

    Returns:
        The state to resume from; None for a new run.

    Raises:
        CheckpointError: there is no state to resume from, or the run has reached its end.
        OutputError: a file exists already, or cannot be written.
    """
    state = _state_to_resume(files) if resume else None
    if state is not None and files.output.exists() and not overwrite:
        _refuse_finished(state, files, options)
        how = in_words_of_caller("overwrite=True", "--overwrite")
        raise OutputError(f"{files.output}: exists already; pass {how} as well to replace it in the end")
    if state is None and files.state.exists() and not overwrite:
        go_on, anew = in_words_of_caller("resume=True", "--resume"), in_words_of_caller("overwrite=True", "--overwrite")
        raise OutputError(
            f"{files.state}: a run that writes {files.output.name} has begun already; pass {go_on} to go on with it, "
            f"{anew} to begin anew, or choose another {in_words_of_caller('output', '-o')}"
        )
    kept = [files.epoch(number) for number in range(every, options.epochs + 1, every)] if every else []
    for path in (files.output, files.state, files.log, *([files.best] if best else []), *kept):
        suffixes = CHECKPOINT_SUFFIXES if path != files.log else ()
        check_output(path, overwrite=overwrite or resume, sources=tuple(sources), suffixes=suffixes)
    return state


def _state_to_resume(files: RunFiles) -> Path:
    """The run's state, or the one for all runs of a folder that daukit 0.1 wrote."""
    if files.state.exists():
        return files.state
    if files.older_state.exists():
        try:
            read_state(files.older_state)
            return files.older_state
        except CheckpointError:  # somebody else's file of that name
            pass
    how = in_words_of_caller("resume", "--resume")
    raise CheckpointError(f"{files.state}: there is no such file, so no run to go on with; drop {how} to begin")


def _refuse_finished(state: Path, files: RunFiles, options: TrainingOptions) -> None:
    """Raise ``CheckpointError`` if a run has reached its end: what to do then depends on its schedule."""
    saved = read_state(state)
    done = len(saved.results)
    if done < options.epochs:
        return
    start = in_words_of_caller(f"initial_checkpoint={files.output}", f"--initial-checkpoint {files.output}")
    advice = f"fine-tune it with {start} and another {in_words_of_caller('output', '-o')}"
    if saved.run["options"].get("epochs") is None:  # nothing depends on the length of the run
        more, how = in_words_of_caller("epochs", "--epochs"), in_words_of_caller("overwrite=True", "--overwrite")
        advice = f"raise {more} above {done} and pass {how} to train on, or {advice}"
    raise CheckpointError(f"{state}: all {done} epochs are done, and {files.output.name} is written; {advice}")


def keep_checkpoints(
    files: RunFiles,
    options: TrainingOptions,
    *,
    best: bool = False,
    every: int | None = None,
    source: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Callable[[nn.Module, list[EpochResult]], None]:
    """Make the function for ``train(on_epoch=...)`` that keeps checkpoints on the way and replaces older ones.

    A run that is resumed writes those of its last epoch again, so that none is missing after a kill.

    Args:
        files: where to.
        options: of the training, for the history of the checkpoints.
        best: keep the epoch of the best test accuracy, the first of several, of those with whole displacements if they
            become whole. It was chosen by the test images, so its accuracy on them is too good a guess for others.
        every: keep every epoch that this divides.
        source: digest of the file that the model was loaded from, for the history.
        notes: what stands in the history beside the options.
    """

    def keep(model: nn.Module, results: list[EpochResult]) -> None:
        last = results[-1]
        arguments = {**history_arguments(options, results, notes), "epoch": last.epoch}
        if every and last.epoch % every == 0:
            _write(model, files.epoch(last.epoch), arguments, source)
        is_rival = options.snap_at is None or options.is_whole(last.epoch)
        if best and is_rival and best_of(results, options) is last:
            _write(model, files.best, {**arguments, "chosen_by": f"test {last.headline}"}, source)

    return keep


def _write(model: nn.Module, path: Path, arguments: dict[str, Any], source: str | None) -> None:
    checkpoint = from_model(model)
    history = [*checkpoint.header.history, history_entry("train", arguments, source)]
    write(replace(checkpoint, header=replace(checkpoint.header, history=history)), path, overwrite=True)
