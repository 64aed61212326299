"""Progress on stderr: on a terminal a bar that vanishes at the end, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from daukit.cli.printing import is_quiet, note
from daukit.results import Progress
from daukit.texts import visible

PATIENCE = 2.0
"""Seconds until the first line; shorter work prints none."""
PAUSE = 10.0
"""Least seconds between lines; a twentieth of the time so far where that is more, so that a night has a hundred."""


class _Lines:
    """The time when the next line is due. One object serves all bars of a command, as there is one stderr."""

    start: float | None = None
    due = 0.0
    first: tuple[float, float] | None = None
    """Time and share of a bar's first report, from which the time that is left follows."""

    def begin(self) -> None:
        """Start a bar, and the clock at the first one."""
        self.first = None
        if self.start is None:
            self.start = time.monotonic()
            self.due = self.start + PATIENCE

    def report(self, share: float, text: str) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        self.first = self.first or (now, share)
        if self.start is None or now < self.due:
            return
        self.due = now + max(PAUSE, (now - self.start) / 20)
        since, before = self.first
        left = f", {duration((now - since) * (1 - share) / (share - before))} left" if before < share < 1 else ""
        note(f"{share:.0%} {text}".rstrip() + left)


def duration(seconds: float) -> str:
    """A time as ``"2:05:09"``, or ``"0:00:09"``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


_lines = _Lines()


@contextmanager
def progress_bar(total: int) -> Iterator[Progress]:
    """A bar of ``total`` steps; yields the function that takes (steps done, what is going on)."""
    if is_quiet():
        yield lambda done, text: None
        return
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal or console.is_dumb_terminal:
        _lines.begin()
        yield lambda done, text: _lines.report(done / total, text)
        return
    from rich import progress as bars
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with bars.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, text: progress.update(task, completed=done, description=visible(text))
