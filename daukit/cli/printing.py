"""The output of commands: results on stdout (tables, one JSON object, or the bare answer), messages on stderr.

A command chooses its mode once, by ``speak``. Then it calls the functions below with all that it may print, and each of
them prints or not. Names and paths are printed as they are, except for characters that a terminal obeys: see
``daukit.texts.visible``. rich is imported when it is needed, and gets no string that it could take for markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer

from daukit.cli.streams import as_answer, guarded, write_message, write_results
from daukit.results import as_json
from daukit.texts import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_WIDE = 200
"""Width of tables that no terminal bounds: a pipe or a dumb terminal must not lose columns."""


Mode = Literal["tables", "json", "quiet", "silent"]

# A plain global, as there is one stdout: it spares every function that may print something an argument.
_mode: Mode = "tables"


def speak(*, json: bool, quiet: bool) -> None:
    """Choose the mode of this command; both at once is a usage error."""
    global _mode
    if json and quiet:
        raise typer.BadParameter("--json prints an object and --quiet bare answers; give one", param_hint="--quiet")
    if _mode != "silent":
        _mode = "json" if json else "quiet" if quiet else "tables"


def fall_silent() -> None:
    """Print nothing but errors from now on, whatever mode is chosen: another process prints the same."""
    global _mode
    _mode = "silent"


def is_quiet() -> bool:
    """True where only answers are wanted, or nothing."""
    return _mode in ("quiet", "silent")


def is_json() -> bool:
    """True where the only output is an object."""
    return _mode == "json"


def print_json(command: str, data: object) -> None:
    """With --json, print a result as the one JSON object of ``command``, which schemas/COMMAND.json describes."""
    if _mode == "json":
        write_results(to_json(command, data))


def to_json(command: str, data: object) -> str:
    """The text of the object; the tests validate each one against its schema."""
    return json.dumps(as_json(data), indent=2, allow_nan=False) + "\n"


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, legend: str = "", answer: bool = False
) -> None:
    """Print a table: the first column is text, the others are numbers.

    Args:
        title: a line above it.
        columns: headings.
        rows: numbers are shortened, None is a dash.
        legend: meaning of the columns, printed as a message.
        answer: whether the table is the answer, whose rows --quiet prints bare, with tabs between the cells.
    """
    if answer and _mode == "quiet":
        write_results("".join("\t".join(visible(_bare(value)) for value in row) + "\n" for row in rows))
    if _mode != "tables":
        return
    from rich.measure import Measurement
    from rich.table import Table

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(_text(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_text(_cell(value)) for value in row))
    console = _console(sys.stdout)
    with guarded(), console.capture() as drawn:
        console.print(_text(title, "bold"), soft_wrap=True)  # a table's own title would wrap at its width
        if Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum <= console.width:
            console.print(table)
        else:
            _print_records(console, columns, rows)
    write_results(drawn.get())
    if legend:
        note(legend)


def _print_records(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print the values of a row below each other, where columns would be too narrow for their words."""
    from rich.table import Table

    for row in rows:
        console.print(_text(_cell(row[0]), "bold"))
        record = Table.grid(padding=(0, 2), pad_edge=True)
        for column, value in zip(columns[1:], row[1:], strict=True):
            record.add_row(_text(column), _text(_cell(value)))
        console.print(record)


def print_line(text: str) -> None:
    """Print a line of results outside a table."""
    if _mode == "tables":
        write_results(visible(text) + "\n")


def change(before: float, after: float, unit: str) -> str:
    """Both numbers, and the difference in percent."""
    percent = 100 * (after - before) / before if before else 0.0
    first, second = (f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for value in (before, after))
    return f"{first} -> {second} {unit} ({percent:+.1f}%)"


def print_answer(value: object) -> None:
    """With --quiet, print the answer, a number in full digits and a path byte by byte."""
    if _mode == "quiet":
        write_results(as_answer(_bare(value)) + "\n")


def print_text(text: str) -> None:
    """Print a text of daukit's own, such as a schema, in any mode."""
    write_results(text)


def wrote(*paths: Path | str | None) -> None:
    """Print the files written, which are the answer."""
    for path in filter(None, paths):
        print_answer(path)
        note(f"wrote {path}")


def note(message: str) -> None:
    """Print a message for the person at the terminal, in one line."""
    if not is_quiet():
        write_message(visible(message) + "\n")


def note_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a library's warning in one line; a ``warnings.showwarning``."""
    note(f"warning: {' '.join(str(message).split())}")


def fail(message: str) -> None:
    """Print an error in one line."""
    console = _console(sys.stderr)
    in_colour = console.color_system not in (None, "windows") and not console.no_color
    head = "\x1b[1;31merror:\x1b[0m" if in_colour else "error:"
    write_message(f"{head} {visible(message)}\n")


def _console(file: Any) -> Console:
    from rich.console import Console

    terminal = Console(file=file)
    if terminal.is_terminal and not terminal.is_dumb_terminal:
        return terminal
    return Console(file=file, width=_WIDE, height=50)  # without a height, rich takes 80 columns for a dumb terminal


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(visible(text), style)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def _bare(value: object) -> str:
    return "" if value is None else str(value)
