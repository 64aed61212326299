"""``daukit schema``: the JSON schema of what a command prints with --json."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal, get_args

import typer

from daukit.cli.printing import print_text

Command = Literal[
    "bake", "bench", "checks", "convert", "diff", "erf", "evaluate", "export", "info", "models",
    "plot-offsets", "predict", "prune", "recipes", "report", "rescale", "snap", "train", "undo",
]  # fmt: skip

EXAMPLES = ("daukit schema prune", "daukit schema info")


def _names() -> list[str]:
    return list(get_args(Command))


def schema(
    # A choice would be listed in a line of the help that no terminal is wide enough for.
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Command whose schema to print.", autocompletion=_names)
    ],
) -> None:
    """Print the JSON schema (draft 2020-12) of a command's --json output.

    Later versions of daukit only add keys.
    """
    if command not in _names():
        message = f"{command!r} does not print JSON; the commands that do are {', '.join(_names())}"
        raise typer.BadParameter(message, param_hint="COMMAND")
    print_text(read(command))


def read(command: str) -> str:
    """The text of a command's schema."""
    return (files("daukit.cli") / "schemas" / f"{command}.json").read_text(encoding="utf-8")
