"""What ``daukit train`` does when it knows what to train: refuse, report, run, and stop so that it can go on."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from daukit.cli.progress import progress_bar
from daukit.cli.report import fail, note, print_json, print_line, wrote
from daukit.errors import naming

if TYPE_CHECKING:
    from torch import nn

    from daukit.data import ImageDataset
    from daukit.training import EpochResult, RunFiles, TrainingOptions


@dataclass(frozen=True)
class Run:
    """A training that is about to begin.

    Attributes:
        network: what to train.
        called: what messages call it.
        source: digest of the file that it comes from.
        data: the folder of the images.
        train_set: images to learn from.
        test_set: images to measure on.
        options: how to train.
        files: what it writes.
        best: whether it keeps its best epoch.
        every: epochs between the checkpoints that it keeps.
        device: where to train.
    """

    network: nn.Module
    called: str
    source: str | None
    data: Path
    train_set: ImageDataset
    test_set: ImageDataset
    options: TrainingOptions
    files: RunFiles
    best: bool
    every: int | None
    device: str

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-len(self.train_set.images) // self.options.batch_size)


def check_outputs(
    files: RunFiles,
    options: TrainingOptions,
    *,
    resume: bool,
    best: bool,
    every: int | None,
    overwrite: bool,
    sources: Sequence[Path] = (),
) -> Path | None:
    """Raise ``DaukitError`` where the run's files are taken, or there is nothing to resume; the state to resume."""
    from daukit.errors import OutputError
    from daukit.files import CHECKPOINT_SUFFIXES, check_output

    if files.output.name.endswith(".resume.safetensors"):
        raise typer.BadParameter(f"{files.output.name} is the name of a training's state", param_hint="--output")
    if every is not None and every > options.epochs:
        raise typer.BadParameter(
            f"no epoch of {options.epochs:,} is a multiple of {every:,}; give {options.epochs:,} at most",
            param_hint="--save-every",
        )
    state = _state_to_resume(files) if resume else None
    if state is not None and files.output.exists() and not overwrite:
        _refuse_finished(state, files, options)
        raise OutputError(f"{files.output}: exists already; pass --overwrite as well to replace it in the end")
    if state is None and files.state.exists() and not overwrite:
        raise OutputError(
            f"{files.state}: a run that writes {files.output.name} has begun already; pass --resume to go on with it, "
            "--overwrite to begin anew, or choose another -o"
        )
    kept = [files.epoch(number) for number in range(every, options.epochs + 1, every)] if every else []
    for path in (files.output, files.state, files.log, *([files.best] if best else []), *kept):
        suffixes = CHECKPOINT_SUFFIXES if path != files.log else ()
        check_output(path, overwrite=overwrite or resume, sources=sources, suffixes=suffixes)
    return state


def _state_to_resume(files: RunFiles) -> Path:
    """The run's state, or the one for all runs of a folder that daukit 0.1 wrote."""
    from daukit.errors import CheckpointError
    from daukit.training import read_state

    if not files.state.exists() and files.older_state.exists():
        try:
            read_state(files.older_state)
        except CheckpointError:  # somebody else's file of that name
            pass
        else:
            note(f"{files.older_state}: going on from this state of daukit 0.1; from now on it is {files.state.name}")
            return files.older_state
    if not files.state.exists():
        raise CheckpointError(f"{files.state}: there is no such file, so no run to go on with; drop --resume to begin")
    return files.state


def _refuse_finished(state: Path, files: RunFiles, options: TrainingOptions) -> None:
    """Raise ``CheckpointError`` if a run has reached its end: what to do then depends on its schedule."""
    from daukit.errors import CheckpointError
    from daukit.training import read_state

    saved = read_state(state)
    done = len(saved.results)
    if done < options.epochs:
        return
    advice = f"fine-tune it with --from {files.output} and another -o"
    if saved.run["options"].get("schedule") != "cosine":  # a cosine's rates depend on its length
        advice = f"raise --epochs above {done} and pass --overwrite to train on, or {advice}"
    raise CheckpointError(f"{state}: all {done} epochs are done, and {files.output.name} is written; {advice}")


def run(job: Run, resume_from: Path | None, *, dry_run: bool, overwrite: bool) -> None:
    """Train and report; with ``dry_run``, only check all that can be checked, and say what would be done."""
    from daukit.checkpoint import from_model, save
    from daukit.evaluation import check_fits
    from daukit.models import record_of

    record = record_of(job.network)
    assert record is not None and record.preprocessing is not None
    job.network.to(job.device).eval()
    for images in (job.train_set, job.test_set):
        check_fits(
            job.network,
            images,
            record.preprocessing,
            job.device,
            network=job.called,
            images=f"the images of {job.data}",
        )
    with naming(job.called):
        from_model(job.network)  # what cannot be saved should say so before it is trained
    parameters = sum(parameter.numel() for parameter in job.network.parameters())
    size = {"parameters": parameters, "images": len(job.train_set.images), "steps": job.steps}
    if dry_run:
        nothing = dict.fromkeys(("output", "bytes", "log", "state", "accuracy", "loss"))
        print_json("train", {**nothing, **size, "epochs": job.options.epochs})
        print_line(
            f"{job.called}: {parameters:,} parameters, {job.options.epochs:,} epochs of {job.steps:,} steps on "
            f"{len(job.train_set.images):,} images, {len(job.test_set.images):,} to measure on"
        )
        note("dry run: nothing was trained or written")
        return
    with _said_when_stopped(job, resume_from) as done:
        results = _train(job, resume_from, done)
        written = save(job.network, job.files.output, overwrite=overwrite)
    last, files = results[-1], job.files
    result: dict[str, Any] = {"output": str(files.output), "bytes": written, "log": str(files.log)}
    result |= {"state": str(files.state), **size, "epochs": len(results)}
    print_json("train", {**result, "accuracy": last.test_accuracy, "loss": last.test_loss})
    print_line(f"test accuracy {last.test_accuracy:.2%} after {len(results)} epochs; log in {files.log}")
    print_line(f"file: {written:,} bytes")
    _tell_of_kept(job, results)
    wrote(files.output)


def _train(job: Run, resume_from: Path | None, done: list[EpochResult]) -> list[EpochResult]:
    from daukit.training import keep_checkpoints, train

    keep = keep_checkpoints(job.files, job.options, best=job.best, every=job.every, source=job.source)

    def on_epoch(network: nn.Module, results: list[EpochResult]) -> None:
        done[:] = results
        keep(network, results)

    with _progress(job) as on_step:
        return train(
            job.network, job.train_set, job.test_set, job.options, resume_path=job.files.state,
            log_path=job.files.log, resume=resume_from is not None, resume_from=resume_from, source=job.source,
            device=job.device, on_step=on_step, on_epoch=on_epoch,
        )  # fmt: skip


def _tell_of_kept(job: Run, results: list[EpochResult]) -> None:
    """Say what the kept checkpoints are, and what is odd about the result."""
    from daukit.training import absurd_loss

    if job.best:
        best = max(results, key=lambda result: result.test_accuracy)
        told = (
            f"best epoch: {best.epoch}, test accuracy {best.test_accuracy:.2%}, chosen by it and so a little too good"
        )
        print_line(told if job.files.best.exists() else f"{told}; it was over before --best was given, and is not kept")
    if results[-1].test_loss > absurd_loss(job.train_set.num_classes):
        note(f"a mean test loss of {results[-1].test_loss:.3g} is absurd: lower --lr or --mu-lr-factor")


class _Terminated(BaseException):
    """SIGTERM, as an exception: like KeyboardInterrupt, none that code in between may take for an error."""


@contextmanager
def _said_when_stopped(job: Run, resume_from: Path | None) -> Iterator[list[EpochResult]]:
    """On Ctrl-C and SIGTERM, say what is safe and how to go on, and exit as a shell expects it (130, 143).

    The list that it gives is to hold the results that are safe.
    """
    from daukit.training import read_state

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    done = [] if resume_from is None else read_state(resume_from).results
    in_main = threading.current_thread() is threading.main_thread()  # no other may say what signals do
    previous = signal.signal(signal.SIGTERM, terminate) if in_main else None
    try:
        yield done
    except (KeyboardInterrupt, _Terminated) as stop:
        by_hand = isinstance(stop, KeyboardInterrupt)
        fail(f"stopped by {'Ctrl-C' if by_hand else 'SIGTERM'}; {_how_to_go_on(job, resume_from, done)}")
        raise typer.Exit(128 + (signal.SIGINT if by_hand else signal.SIGTERM)) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, previous)


def _how_to_go_on(job: Run, resume_from: Path | None, done: list[EpochResult]) -> str:
    if not done:
        return "no epoch was done, so nothing was written; run the same command again"
    words = ["daukit", *sys.argv[1:]]
    again = shlex.join(words if "--resume" in words else [*words, "--resume"])
    epochs = "epoch 1 is" if len(done) == 1 else f"epochs 1 to {len(done)} are"
    state = job.files.state if job.files.state.exists() else resume_from
    return f"{epochs} safe in {state}; go on with: {again}"


@contextmanager
def _progress(job: Run) -> Iterator[Callable[[int, int, int, float], None]]:
    epochs, steps = job.options.epochs, job.steps
    with progress_bar(epochs * steps) as update:
        yield lambda epoch, step, _, loss: update(
            epoch * steps + step + 1, f"epoch {epoch + 1}/{epochs}, loss {loss:.3f}"
        )
