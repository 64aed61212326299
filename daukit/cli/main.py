"""The table of commands, and the one place where errors become words and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from daukit._version import __version__
from daukit.cli import (
    bake,
    bench,
    checks,
    completion,
    convert,
    diff,
    erf,
    evaluate,
    export,
    info,
    models,
    options,
    plot_offsets,
    predict,
    processes,
    prune,
    recipes,
    report,
    rescale,
    schema,
    snap,
    streams,
    train,
    undo,
)
from daukit.cli.examples import as_epilog, examples_of
from daukit.cli.printing import note_warning, print_text
from daukit.distributed import here
from daukit.errors import DaukitError, speak_to_shell
from daukit.texts import visible

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""All of typer's usage errors: typer brings a click of its own or takes the installed one, and exports their child."""


@contextmanager
def _readable() -> Iterator[None]:
    """Make visible what a usage error quotes."""
    try:
        yield
    except _UsageError as error:
        if not processes.is_first_to_fail():
            raise SystemExit(2) from None
        # typer words some refusals by pydantic, which begins with the type of its error.
        error.message = visible(error.message.removeprefix("Value error, "))
        raise


class _Commands(TyperGroup):
    """The program."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the program's own options."""
        with _readable():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Parse a command's options and run it."""
        with _readable():
            return super().invoke(ctx)


class _Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse its options."""
        return super().parse_args(ctx, options.with_present_names(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        options.remember_given(ctx)
        options.refuse_wild_numbers(ctx)
        processes.begin(ctx)
        return super().invoke(ctx)


app = typer.Typer(
    name="daukit",
    cls=_Commands,
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
# In the order of the list of commands, each with what it says there: a line of 80 columns.
for _name, _run, _summary in (
    ("train", train.train, "Train a classifier on a folder of images."),
    ("recipes", recipes.recipes, "List the recipes of trainings, or print one."),
    ("evaluate", evaluate.evaluate, "Measure how good a network is on a folder of images."),
    ("predict", predict.predict, "Write what a network says of pictures."),
    ("info", info.info, "Print a checkpoint's content, or a network's sizes."),
    ("report", report.report, "Make a page about a network, to look at in a browser."),
    ("diff", diff.diff, "Print what changed from one file to another."),
    ("models", models.models, "List the networks that --model accepts by name."),
    ("erf", erf.erf, "Measure and draw effective receptive fields."),
    ("prune", prune.prune, "Remove the units of small weight."),
    ("rescale", rescale.rescale, "Rescale displacements for maps of higher resolution."),
    ("undo", undo.undo, "Take back the last rescale of a file, where that is exact."),
    ("snap", snap.snap, "Move units to whole pixels, where reading costs a third."),
    ("bake", bake.bake, "Export a network with plain convolutions as a program."),
    ("export", export.export, "Write a network for other programs, as ONNX."),
    ("plot-offsets", plot_offsets.plot_offsets, "Draw where a network's units sit, or moved."),
    ("convert", convert.convert, "Import other packages' files; substitute DAU layers."),
    ("bench", bench.bench, "Time layers and networks beside their peers."),
    ("checks", checks.checks, "Print versions, backends and devices."),
    ("schema", schema.schema, "Print the JSON schema of a command's --json."),
    ("completion", completion.completion, "Print a completion script for a shell."),
):
    _epilog = as_epilog(examples_of(_run))
    app.command(_name, cls=_Command, short_help=_summary, epilog=_epilog)(_run)

_state = {"debug": False}


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"daukit {__version__}\n")
        raise typer.Exit


@app.callback()
def program(
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
    streams.prepare()
    warnings.showwarning = note_warning
    try:
        _run_command()
    except SystemExit as end:
        processes.leave(end.code)
        raise


def _run_command() -> None:
    """Run the command, and end with its exit code: ``SystemExit``."""
    try:
        try:
            app()
        finally:
            streams.finish()
    except Exception as error:
        words = None if _state["debug"] else _words(error)
        if words is not None:
            processes.say_why(words)
        elif here().is_alone:
            raise
        elif processes.is_first_to_fail():
            traceback.print_exc()
        sys.exit(1)


def _words(error: Exception) -> str | None:
    """The sentence for an error of the world outside; None for a bug, whose traceback is shown."""
    if isinstance(error, DaukitError):
        return str(error)
    if _is_lack_of_memory(error):
        return "there is not enough memory for this; take smaller images, fewer of them, or a smaller network"
    return _refusal(error) if isinstance(error, OSError) else None


def _is_lack_of_memory(error: Exception) -> bool:
    """Python's own error, or torch's, which on the CPU has no type of its own."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "Storage size" in str(error)))
    )


def _refusal(error: OSError) -> str:
    """The file that the system refused, and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
