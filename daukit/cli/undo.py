"""``daukit undo``: take back the last rescale of a file, where that is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from daukit.cli import options
from daukit.cli.printing import note, print_json, print_line, print_table, speak, wrote

if TYPE_CHECKING:
    from daukit.workflows.undo import Undone

EXAMPLES = (
    "daukit undo rescaled.safetensors -o before.safetensors",
    "daukit undo rescaled.safetensors --dry-run --json",
)


def undo(
    source: options.Source,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take back the last operation of FILE, a rescale by factors, and write the checkpoint that was there before.

    It is refused where a bit may have been lost: by factors that are no powers of two, for example.
    """
    speak(json=json, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    from daukit.workflows.undo import undo_checkpoint

    checkpoint = options.read_source(source, None, None, None)
    result = undo_checkpoint(checkpoint, None if dry_run else output, overwrite=overwrite)
    print_json("undo", result)
    _print(result)


def _print(result: Undone) -> None:
    rows = [(name, factor) for name, factor in result.factors.items()]
    print_table(f"Taken back, in mode {result.mode}", ("layer", "factor"), rows)
    same = {
        True: "the result is the file that was rescaled, byte for byte",
        False: "the tensors are those that were there, but the file is not the same byte for byte",
        None: "the tensors are those that were there; the history does not tell which file it was",
    }[result.same_file]
    print_line(same)
    wrote(result.output)
    if result.output is None:
        note("dry run: nothing was written")
