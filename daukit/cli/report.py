"""How commands speak: data on stdout (tables, lines or one JSON object), talk on stderr. rich loads when needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 200
"""Width of tables that no terminal bounds: a pipe or a dumb terminal must not lose columns."""


def print_json(data: Mapping[str, Any]) -> None:
    """Print the command's one JSON object."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column is text, the others are numbers."""
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    console = _console(sys.stdout)
    console.print(f"[bold]{escape(title)}[/]", soft_wrap=True, highlight=False)  # a table's own would wrap at its width
    console.print(table)


def print_line(text: str) -> None:
    """Print a line of results that is no table."""
    sys.stdout.write(text + "\n")


def note(message: str) -> None:
    """Say something to the person at the terminal."""
    from rich.markup import escape

    _console(sys.stderr).print(escape(message), soft_wrap=True, highlight=False)


def fail(message: str) -> None:
    """Say in one line what went wrong."""
    from rich.markup import escape

    _console(sys.stderr).print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)


def _console(file: Any) -> Console:
    from rich.console import Console

    terminal = Console(file=file)
    return terminal if terminal.is_terminal and not terminal.is_dumb_terminal else Console(file=file, width=_WIDE)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
