"""``daukit diff``: what changed from one file to another."""

from __future__ import annotations

import json as text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daukit.cli import options
from daukit.cli.info import in_a_line
from daukit.cli.printing import print_answer, print_json, print_line, print_table, speak

if TYPE_CHECKING:
    from daukit.workflows.diff import FileDifference

EXAMPLES = (
    "daukit diff model.safetensors other.safetensors",
    "daukit diff model.safetensors other.safetensors --json",
)


def diff(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A daukit checkpoint, or a state dict with --model.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The file to compare it with.")],
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print what changed from FILE to OTHER: headers, layers and tensors. The exit code is 1 if they differ.

    Histories do not count: two files made alike at different times are the same.
    """
    speak(json=json, quiet=quiet)
    first, second = (options.read_source(path, model, model_arg, weights) for path in (source, other))
    from daukit.workflows.diff import compare_checkpoints

    result = compare_checkpoints(first, second)
    print_json("diff", result)
    for name in (*(change.key for change in result.header), *(change.name for change in result.tensors)):
        print_answer(name)
    _print(result)
    if not result.same:
        raise typer.Exit(1)


def _print(result: FileDifference) -> None:
    if result.header:
        rows = [(change.key, _short(change.before), _short(change.after)) for change in result.header]
        print_table("Headers", ("value", "before", "after"), rows)
    if result.units:
        print_table("Units", ("layer", "before", "after"), [(u.layer, u.before, u.after) for u in result.units])
    if result.tensors:
        changes = [
            (t.name, t.kind, t.before, None if t.after == t.before else t.after, t.norm, t.difference, t.largest)
            for t in result.tensors
        ]
        columns = ("tensor", "change", "before", "after", "norm before", "of the difference", "largest difference")
        print_table("Tensors", columns, changes)
    print_line("nothing differs" if result.same else f"tensors that are the same: {result.equal_tensors:,}")
    for name, entries in (("FILE", result.history), ("OTHER", result.other_history)):
        for entry in entries:
            print_line(f"only {name}: {in_a_line(entry)}")


def _short(value: Any) -> str | None:
    """A value of a header as JSON, or its beginning."""
    if value is None:
        return None
    words = text.dumps(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
