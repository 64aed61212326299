"""Commands that several processes run together under torchrun: one of them speaks, and they end together."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import typer

from daukit import distributed
from daukit.cli import printing
from daukit.errors import DaukitError

TOGETHER = ("train", "evaluate", "erf")
"""Commands that divide their work."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def begin(ctx: Any) -> None:
    """Join the processes that torchrun started with this one, or do nothing where it is alone.

    Raises:
        BadParameter: there are others, and the command does not divide its work.
        DaukitError: torchrun's variables are incomplete, or a process does not come.
    """
    try:
        ranks = distributed.ranks_of(os.environ)
    except DaukitError:
        if ctx.info_name in TOGETHER:
            raise
        return
    if ranks.is_alone:
        return
    if ctx.info_name not in TOGETHER:
        raise typer.BadParameter(
            f"{ctx.info_name} works in one process, and torchrun has started {ranks.size}; start it without torchrun"
        )
    distributed.join(ranks, on_gpus=ctx.params["device"] != "cpu")
    for number in _SIGNALS:
        signal.signal(number, _end)
    if not ranks.is_writer:
        printing.fall_silent()


def _end(number: int, frame: FrameType | None) -> None:
    """End at once, from within whatever goes on: an exception could get lost in code of others."""
    name = signal.Signals(number).name
    say_why(f"stopped by {name}: another process of this work has ended, or somebody has asked for it")
    leave(128 + number)


def leave(code: Any) -> None:
    """Part from the others when a command ends with ``code``, as of ``SystemExit``; do nothing where it is alone."""
    distributed.leave(code if isinstance(code, int) else int(code is not None))


def say_why(words: str) -> None:
    """Print why this command ends, unless another of its processes has said so first."""
    if is_first_to_fail():
        printing.fail(words)


def is_first_to_fail() -> bool:
    """True in the process that says why all of them end; it is not disturbed while it does."""
    if not distributed.here().is_alone:
        for number in _SIGNALS:  # torchrun sends them when it sees that another process has ended
            signal.signal(number, signal.SIG_IGN)
    return distributed.is_first_to_fail()
