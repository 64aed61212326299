"""Progress, on stderr: a bar where somebody watches, gone when done; a line now and then where nobody does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from daukit.cli.report import is_quiet, note
from daukit.texts import visible

Update = Callable[[float, str], None]

PATIENCE = 2.0
"""Seconds until the first line: what is done by then needs none."""
PAUSE = 10.0
"""Seconds between lines, at least; a twentieth of the time so far where that is more, so that a night has a hundred."""


class _Lines:
    """When the next line is due. There is one, as there is one stderr: a command may have many bars in turn."""

    start: float | None = None
    due = 0.0

    def begin(self) -> None:
        """Count the time from the first bar on."""
        if self.start is None:
            self.start = time.monotonic()
            self.due = self.start + PATIENCE

    def tell(self, share: float, text: str) -> None:
        """Say how far it is, if it is time to."""
        now = time.monotonic()
        if self.start is None or now < self.due:
            return
        self.due = now + max(PAUSE, (now - self.start) / 20)
        note(f"{share:.0%} {text}".rstrip())


_lines = _Lines()


@contextmanager
def progress_bar(total: int) -> Iterator[Update]:
    """A bar of ``total`` steps; the function it gives takes (steps done, what is going on)."""
    if is_quiet():
        yield lambda done, text: None
        return
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal or console.is_dumb_terminal:
        _lines.begin()
        yield lambda done, text: _lines.tell(done / total, text)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, text: progress.update(task, completed=done, description=visible(text))
