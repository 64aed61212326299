"""Ctrl-C and SIGTERM while a run trains: its state is saved, and one line says where it is and how to go on."""

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

from daukit.cli.printing import fail
from daukit.distributed import here

if TYPE_CHECKING:
    from daukit.workflows.train_runs import TrainingRun

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class _Interrupted(BaseException):
    """A signal as an exception; like KeyboardInterrupt, it is no ``Exception`` that other code may catch."""


@dataclass
class Stop:
    """What has been asked for, and what is safe.

    Attributes:
        by: the signal that asked for an end; None so far.
        epochs: epochs that are safe.
        steps: steps of the next epoch that are safe.
    """

    by: signal.Signals | None = None
    epochs: int = 0
    steps: int = 0

    @property
    def asked(self) -> bool:
        """True if the run shall end."""
        return self.by is not None

    def saved(self, epochs: int, steps: int) -> None:
        """Note what is safe now."""
        self.epochs, self.steps = epochs, steps

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Ask for an end after the step that goes on; a second signal does not wait for it.

        Where there are several processes it changes nothing: Ctrl-C reaches each of them from the terminal and, once
        more, from torchrun, which ends those that take too long.
        """
        if self.asked and here().is_alone:
            raise _Interrupted
        self.by = signal.Signals(number)


@contextmanager
def explain_stop(run: TrainingRun) -> Iterator[Stop]:
    """Let signals ask for an end, explain it, and exit as a shell expects it (130, 143).

    Inside the block, the caller asks ``Stop.asked`` whether to save and end, and says what is saved.
    """
    from daukit.training import TrainingStoppedError, read_state

    stop = Stop()
    if run.resume_from is not None:
        state = read_state(run.resume_from)
        stop.saved(len(state.results), state.partial.steps if state.partial else 0)
    before = {}
    if threading.current_thread() is threading.main_thread():  # only this thread may set a signal's handler
        # Shells start programs in the background deaf to Ctrl-C, and so they stay.
        heard = [number for number in _NAMES if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, stop.handle) for number in heard}
    try:
        yield stop
    except (KeyboardInterrupt, _Interrupted, TrainingStoppedError):
        number = stop.by or (signal.SIGINT if here().is_alone else signal.SIGTERM)  # another process may have got it
        if here().is_writer:
            fail(f"stopped by {_NAMES[number]}; {_how_to_go_on(run, stop)}")
        raise typer.Exit(128 + number) from None
    finally:
        if here().is_alone:  # of several, another one may have failed: torchrun's signal must not come before a reason
            for each, handler in before.items():
                signal.signal(each, handler)


def _how_to_go_on(run: TrainingRun, stop: Stop) -> str:
    if not stop.epochs and not stop.steps:
        return "no step was saved, so nothing was written; run the same command again"
    words = ["daukit", *sys.argv[1:]]
    again = shlex.join(words if "--resume" in words else [*words, "--resume"])
    if not here().is_alone:
        again = f"torchrun (as before) -m {again}"
    epochs = f"epoch{'s 1 to' * (stop.epochs > 1)} {stop.epochs}" if stop.epochs else ""
    steps = f"{stop.steps} step{'s' * (stop.steps > 1)} of epoch {stop.epochs + 1}" if stop.steps else ""
    safe = " and ".join(part for part in (epochs, steps) if part)
    are = "is" if stop.epochs + stop.steps == 1 else "are"
    state = run.files.state if run.files.state.exists() else run.resume_from
    return f"{safe} {are} safe in {state}; go on with: {again}"
