"""Progress bars: on stderr, gone when done, and only where somebody watches and wants them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from daukit.cli.report import is_quiet


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[float, str], None]]:
    """A bar of ``total`` steps; the function it gives takes (steps done, what is going on)."""
    if is_quiet():
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, text: progress.update(task, completed=done, description=text)
