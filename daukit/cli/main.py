"""The table of commands, and the one place where errors become words and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from daukit._version import __version__
from daukit.cli import (
    bake,
    bench,
    checks,
    completion,
    convert,
    erf,
    evaluate,
    info,
    models,
    plot_offsets,
    prune,
    rescale,
    schema,
    train,
)
from daukit.cli.report import fail
from daukit.errors import DaukitError, speak_to_shell

app = typer.Typer(
    name="daukit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Boxes around the help would take longer than everything else in it, and so would the machinery of completion,
    # which is switched on where a shell asks: docs/cli.md.
    rich_markup_mode=None,
    add_completion=completion.VARIABLE in os.environ,
    # The default keeps typer from importing pydantic, only to find that nobody asked the group for help.
    context_settings={"help_option_names": ["-h", "--help"], "default_map": {"help": False}},
    help="Train, shrink and study networks of displaced aggregation units.",
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("info")(info.info)
app.command("models")(models.models)
app.command("erf")(erf.erf)
app.command("prune")(prune.prune)
app.command("rescale")(rescale.rescale)
app.command("bake")(bake.bake)
app.command("plot-offsets")(plot_offsets.plot_offsets)
app.command("convert")(convert.convert)
app.command("bench")(bench.bench)
app.command("checks")(checks.checks)
app.command("schema")(schema.schema)
app.command("completion")(completion.completion)

_state = {"debug": False}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"daukit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train, shrink and study networks of displaced aggregation units."""
    _state["debug"] = debug


def main() -> None:
    """Run the command line: exit 0 when done, 1 on a failure that one line explains, 2 on wrong usage."""
    speak_to_shell()
    try:
        app()
    except (DaukitError, ValueError) as error:
        if _state["debug"]:
            raise
        fail(str(error))
        sys.exit(1)
