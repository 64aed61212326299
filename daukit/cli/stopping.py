"""Ctrl-C and SIGTERM while a run trains: one line that names the epochs that are safe and how to go on."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

import typer

from daukit.cli.report import fail

if TYPE_CHECKING:
    from daukit.training import EpochResult
    from daukit.workflows.train import TrainingRun


class _Terminated(BaseException):
    """SIGTERM as an exception; like KeyboardInterrupt, it is no ``Exception`` that other code may catch."""


@dataclass
class SafeEpochs:
    """The results of the epochs that are safe."""

    results: list[EpochResult]

    def update(self, results: list[EpochResult]) -> None:
        """Replace them by later ones."""
        self.results = results


@contextmanager
def explain_stop(run: TrainingRun) -> Iterator[SafeEpochs]:
    """Explain a stop, and exit as a shell expects it (130, 143); the caller updates the epochs that are safe."""
    from daukit.training import read_state

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    safe = SafeEpochs([] if run.resume_from is None else read_state(run.resume_from).results)
    in_main = threading.current_thread() is threading.main_thread()  # only this thread may set a signal's handler
    previous = signal.signal(signal.SIGTERM, terminate) if in_main else None
    try:
        yield safe
    except (KeyboardInterrupt, _Terminated) as stop:
        by_hand = isinstance(stop, KeyboardInterrupt)
        fail(f"stopped by {'Ctrl-C' if by_hand else 'SIGTERM'}; {_how_to_go_on(run, safe.results)}")
        raise typer.Exit(128 + (signal.SIGINT if by_hand else signal.SIGTERM)) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, previous)


def _how_to_go_on(run: TrainingRun, done: list[EpochResult]) -> str:
    if not done:
        return "no epoch was done, so nothing was written; run the same command again"
    words = ["daukit", *sys.argv[1:]]
    again = shlex.join(words if "--resume" in words else [*words, "--resume"])
    epochs = "epoch 1 is" if len(done) == 1 else f"epochs 1 to {len(done)} are"
    state = run.files.state if run.files.state.exists() else run.resume_from
    return f"{epochs} safe in {state}; go on with: {again}"
