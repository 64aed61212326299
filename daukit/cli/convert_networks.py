"""The tasks of ``daukit convert`` that take a network: substitute, tabulate, make sparse, adapt, write anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import typer

from daukit.cli import options
from daukit.cli.convert_tables import (
    print_adaptation,
    print_sparse,
    print_substitution,
    print_units_table,
    print_written,
)
from daukit.cli.printing import print_json
from daukit.cli.progress import progress_bar

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.workflows.convert import Destination


class Chosen(TypedDict):
    """Options that choose layers of a network."""

    where: list[str] | None
    kernel_size: int | None
    model: str | None


class Zeros(TypedDict):
    """Options that make zeros."""

    threshold: float | None
    sparsity: float | None
    everywhere: bool


_NUMBERS = {2: "two", 3: "three", 4: "four"}


def check_task(*, substitute: bool, units_table: bool, sparse: bool, to: bool) -> None:
    """Make it a usage error to give an option without the task that it belongs to."""
    tasks = {"--substitute": substitute, "--units-table": units_table, "--sparse": sparse, "--to": to}
    wanted = [name for name, is_wanted in tasks.items() if is_wanted]
    if len(wanted) > 1:
        raise typer.BadParameter(f"give one of the {_NUMBERS[len(wanted)]}", param_hint=" and ".join(wanted))
    if units_table:
        options.refuse_unused("the table tries every number of units; drop it", "--units", "--fit")
        options.refuse_unused("--units-table writes nothing; drop it", "--output", "--folder")
    if sparse:
        options.refuse_unused(
            "--sparse makes units of the weights that are there; drop it", "--units", "--fit", "--sigma"
        )
    elif not substitute and not units_table:
        options.refuse_unused("this needs --substitute or --units-table", "--units", "--sigma", "--fit")
        options.refuse_unused("this needs --substitute, --units-table or --sparse", "--where", "--kernel-size")
    if not substitute and not units_table and not to:
        options.refuse_unused("only --substitute and --units-table need it, and --to; drop it", "--seed")
    if not sparse:
        options.refuse_unused("this needs --sparse", "--threshold", "--sparsity", "--time", "--only-faster", "--size")


def check_adaptation(to: str | None, model: str | None) -> None:
    """Make it a usage error to give an option of --to without it, or one of its network to the network of SOURCE."""
    if to is None:
        options.refuse_unused("this needs --to", "--to-arg", "--classes")
    elif model is None:
        options.refuse_unused("options of the --to network go to --to-arg; drop it, or give --model", "--model-arg")


def check_zeros(zeros: Zeros, *, timed: bool) -> None:
    """Make it a usage error to give options of --sparse that do not go together."""
    if zeros["threshold"] is not None and zeros["sparsity"] is not None:
        raise typer.BadParameter("give one of the two", param_hint="--threshold and --sparsity")
    if zeros["everywhere"] and zeros["sparsity"] is None:
        raise typer.BadParameter("this needs --sparsity", param_hint="--global")
    if not timed:
        options.refuse_unused("only --time and --only-faster need it; drop it", "--size")


def rewrite(
    source: Path,
    target: Destination | None,
    *,
    folder: bool,
    model: str | None,
    model_arg: Sequence[str] | None,
    weights: str | None,
) -> None:
    """Write the network as it is."""
    from daukit.workflows.convert import check_rewrite, rewrite_checkpoint

    check_rewrite(source, folder=folder)
    result = rewrite_checkpoint(options.read_source(source, model, model_arg, weights), target)
    print_json("convert", replace(result, file=source))
    print_written(result)


def adapt(
    source: Path,
    checkpoint: Checkpoint,
    target: Destination | None,
    to: str,
    to_arg: Sequence[str] | None,
    *,
    classes: Path | None,
    seed: int,
    model: str | None,
) -> None:
    """Make another network with the layers that fit."""
    from daukit.workflows.adapt import adapt_checkpoint

    config = options.parse_values(to_arg, "--to-arg")
    try:
        result = adapt_checkpoint(checkpoint, to, config, target, classes=classes, seed=seed, model=model)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error).splitlines()[0], param_hint="--to-arg") from None
    print_json("convert", replace(result, file=source))
    print_adaptation(source, result)
    print_written(result)


def tabulate(source: Path, checkpoint: Checkpoint, *, sigma: float | None, seed: int, chosen: Chosen) -> None:
    """Print how many units the layers would need."""
    from daukit.workflows.substitute import tabulate_units

    with progress_bar(1) as update:
        table = tabulate_units(checkpoint, sigma=sigma, seed=seed, **chosen, on_progress=update)
    print_json("convert", replace(table, file=source))  # a folder by its own name, not by that of the file in it
    print_units_table(source, table)


def substitute_layers(
    source: Path,
    checkpoint: Checkpoint,
    target: Destination | None,
    *,
    units: int | None,
    fit: bool,
    sigma: float | None,
    seed: int,
    chosen: Chosen,
) -> None:
    """Put DAU layers in the place of convolutions."""
    from daukit.workflows.substitute import substitute_layers

    with progress_bar(1) as update:
        result = substitute_layers(
            checkpoint, target, units=units, fit=fit, sigma=sigma, seed=seed, **chosen, on_progress=update
        )
    print_json("convert", replace(result, file=source))
    print_substitution(source, result)
    print_written(result)


def convert_sparse(
    source: Path,
    checkpoint: Checkpoint,
    target: Destination | None,
    zeros: Zeros,
    *,
    time: bool,
    only_faster: bool,
    size: tuple[int, int] | None,
    chosen: Chosen,
) -> None:
    """Make units of the weights of pruned convolutions."""
    from daukit.workflows.sparse import convert_sparse

    with progress_bar(1) as update:
        result = convert_sparse(
            checkpoint, target, **zeros, **chosen, time=time, only_faster=only_faster, size=size, on_progress=update
        )
    print_json("convert", replace(result, file=source))
    print_sparse(source, result)
