"""``daukit info``: the content of a file, or the sizes of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import options
from daukit.cli.printing import print_answer, print_json, print_line, print_table, speak

if TYPE_CHECKING:
    from daukit.models.costs import Cost
    from daukit.workflows.info import FileInfo, HistoryEntry, LayerInfo, NetworkInfo

EXAMPLES = (
    "daukit info model.safetensors",
    "daukit info weights.pth --model network.py:make --json",
    "daukit info --model resnet50_dau --model-arg width=16",
)


def info(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A daukit checkpoint, or a state dict with --model. If omitted, describes the network of --model.",
        ),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a checkpoint's layers, displacements, totals and history.

    Without FILE, print the sizes of the network of --model, next to those in the paper.
    """
    speak(json=json, quiet=quiet)
    if source is None:
        if weights is not None:
            raise typer.BadParameter("without a FILE there are no weights to choose", param_hint="--weights")
        _network_info(model, model_arg)
        return
    from daukit.workflows.info import describe_file

    result = describe_file(options.read_source(source, model, model_arg, weights), model=model)
    print_json("info", result)
    print_answer(result.units)
    _print_file(source.name, result)


def _network_info(name: str | None, model_arg: list[str] | None) -> None:
    """A network of daukit's without a file: its layers, and the paper's numbers for it."""
    if name is None:
        raise typer.BadParameter("give a FILE, or the --model to describe (daukit models lists them)")
    from daukit.models.specs import is_factory

    if is_factory(name):
        raise typer.BadParameter(f"{name} needs a FILE; without one, name a model of daukit's", param_hint="--model")
    config = options.parse_values(model_arg, "--model-arg")
    from daukit.workflows.info import describe_network

    try:
        with options.building(name, config, "--model-arg"):
            result = describe_network(name, config)
    except RuntimeError as error:  # torch's, of sizes that cannot be
        raise typer.BadParameter(str(error).splitlines()[0], param_hint="--model-arg") from None
    print_json("info", result)
    print_answer(result.units)
    _print_network(result)


_FILE_COLUMNS = (
    "layer", "channels", "units", "per filter", "parameters", "sigma", "axis limit", "axis max", "mean |mu|",
    "max |mu|", "at limit",
)  # fmt: skip


def _print_file(name: str, result: FileInfo) -> None:
    from daukit.workflows.info import architecture_in_words

    rows = [
        (
            e.name, f"{e.in_channels} -> {e.out_channels}", e.units, f"{e.units_per_filter:.3g}", e.parameters,
            "learned" if e.sigma is None else e.sigma, _limit(e), e.largest_on_axis, e.mean_displacement,
            e.largest_displacement, f"{e.share_at_limit:.1%}",
        )
        for e in result.layers
    ]  # fmt: skip
    print_table(f"{name}: {architecture_in_words(result.architecture)}", _FILE_COLUMNS, rows)
    print_line(f"{result.units:,} units, {result.parameters:,} parameters in all, {result.bytes:,} bytes")
    whole = [layer for layer in result.layers if layer.whole_pixels]
    if whole:
        names, size = ", ".join(layer.name for layer in whole), sum(layer.displacement_bytes for layer in whole)
        print_line(f"reading at whole pixels: {names}; their displacements take {size:,} bytes")
    _print_cost(result)
    if rows:
        print_line("axis limit, axis max: of |y| and |x|; |mu|: Euclidean; all in pixels of the layer's input")
    if not any(entry.operation == "train" for entry in result.history):
        print_line("training unknown: the file's history does not mention any")
    for entry in result.history:
        print_line(in_a_line(entry))


def in_a_line(entry: HistoryEntry) -> str:
    """An operation of a file's history."""
    arguments = ", ".join(f"{key}={value}" for key, value in entry.arguments.items())
    return f"{entry.date}  {entry.operation} ({arguments})  daukit {entry.version}"


def _print_network(result: NetworkInfo) -> None:
    from daukit.workflows.info import architecture_in_words

    rows = [
        (e.name, e.kind, f"{e.in_channels} -> {e.out_channels}", e.units, e.parameters, e.per_filter)
        for e in result.layers
    ]
    columns = ("layer", "kind", "channels", "units", "parameters", "per filter")
    print_table(architecture_in_words({"name": result.model, "config": result.config}), columns, rows)
    if result.paper:
        counts = [(row.quantity, row.table, row.count, row.paper) for row in result.paper]
        print_table("Counted as in the paper", ("quantity", "table", "here", "paper"), counts)
    print_line(f"{result.units:,} units, {result.parameters:,} parameters in all, biases and normalisation included")
    _print_cost(result)


def _print_cost(cost: Cost) -> None:
    if cost.input is not None:
        image = " x ".join(map(str, cost.input[1:]))
        print_line(f"{cost.multiply_adds:,} multiply-adds for one image of {image}")


def _limit(layer: LayerInfo) -> str | None:
    """The limit of each axis in input pixels, as the displacements beside it are."""
    if layer.max_displacement is None:
        return None
    y, x = (f"{layer.max_displacement * dilation:.4g}" for dilation in layer.dilation)
    return y if y == x else f"{y}, {x}"
