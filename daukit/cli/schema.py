"""``daukit schema``: the JSON schema of what a command prints with --json."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

import typer

from daukit.cli.report import print_text

Command = Literal[
    "bake", "bench", "checks", "convert", "erf", "evaluate", "info", "models",
    "plot-offsets", "prune", "rescale", "train",
]  # fmt: skip


def schema(command: Annotated[Command, typer.Argument(metavar="COMMAND", help="Whose output is described.")]) -> None:
    """Print the JSON schema (draft 2020-12) of a command's --json output. Later versions only add keys to it."""
    print_text(read(command))


def read(command: str) -> str:
    """The text of a command's schema."""
    return (files("daukit.cli") / "schemas" / f"{command}.json").read_text(encoding="utf-8")
