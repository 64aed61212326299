"""The examples at the end of a command's --help: each command's module lists its own as ``EXAMPLES``."""

from __future__ import annotations

import sys
from collections.abc import Callable

_WIDTH = 74
"""Columns of a line, so that it fits a terminal of 80 behind the indent and before the backslash."""


def examples_of(command: Callable[..., object]) -> tuple[str, ...]:
    """The command lines that the module of a command's function gives as ``EXAMPLES``."""
    return getattr(sys.modules[command.__module__], "EXAMPLES", ())


def as_epilog(examples: tuple[str, ...]) -> str | None:
    """The end of a help text; a long line continues behind a backslash, as a shell takes it."""
    if not examples:
        return None
    lines = [" \\\n      ".join(_wrap(example)) for example in examples]
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)  # \b: typer leaves the line ends as they are


def _wrap(example: str) -> list[str]:
    """The lines of a command, each but the first with an option at its beginning."""
    first, *options = example.split(" -")
    lines = [first]
    for option in (f"-{option}" for option in options):
        if len(lines[-1]) + 1 + len(option) <= _WIDTH:
            lines[-1] += f" {option}"
        else:
            lines.append(option)
    return lines
