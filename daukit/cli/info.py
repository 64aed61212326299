"""``daukit info``: what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daukit.cli import options
from daukit.cli.costs import file_cost, in_words_of, network_cost
from daukit.cli.report import print_answer, print_json, print_line, print_table, speak

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint


def info(
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A daukit checkpoint, or a state dict with --model.")
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a checkpoint's layers, displacements, totals and history; or, with --model alone, a network's sizes."""
    speak(json=json, quiet=quiet)
    if source is None:
        if weights is not None:
            raise typer.BadParameter("without a FILE there are no weights to choose", param_hint="--weights")
        _network_info(model, model_arg)
        return
    checkpoint = options.read_source(source, model, model_arg, weights)
    result = _summary(checkpoint, model)
    print_json("info", result)
    print_answer(result["units"])
    rows = [
        (
            e["name"], f"{e['in_channels']} -> {e['out_channels']}", e["units"], f"{e['units_per_filter']:.3g}",
            e["parameters"], "learned" if e["sigma"] is None else e["sigma"], _limit(e),
            e["largest_on_axis"], e["mean_displacement"], e["largest_displacement"], f"{e['share_at_limit']:.1%}",
        )
        for e in result["layers"]
    ]  # fmt: skip
    columns = (
        "layer",
        "channels",
        "units",
        "per filter",
        "parameters",
        "sigma",
        "axis limit",
        "axis max",
        "mean |mu|",
        "max |mu|",
        "at limit",
    )
    print_table(f"{source.name}: {_architecture(result['architecture'])}", columns, rows)
    print_line(f"{result['units']:,} units, {result['parameters']:,} parameters in all, {result['bytes']:,} bytes")
    _print_cost(result)
    if rows:
        print_line("axis limit, axis max: of |y| and |x|; |mu|: Euclidean; all in pixels of the layer's input")
    if not any(entry["operation"] == "train" for entry in result["history"]):
        print_line("training unknown: the file's history tells of none")
    for entry in result["history"]:
        arguments = ", ".join(f"{key}={value}" for key, value in entry["arguments"].items())
        print_line(f"{entry['date']}  {entry['operation']} ({arguments})  daukit {entry['version']}")


def _network_info(name: str | None, model_arg: list[str] | None) -> None:
    """A network of daukit's without a file: its layers, and what the paper counts of it."""
    if name is None:
        raise typer.BadParameter("give a FILE, or the --model to describe (daukit models lists them)")
    if ":" in name:
        raise typer.BadParameter(f"{name} needs a FILE; without one, name a model of daukit's", param_hint="--model")
    config = options.parse_values(model_arg, "--model-arg")
    from daukit.models.tables import empty_model, layer_counts, paper_rows, parameter_count

    try:
        with options.building(name, config, "--model-arg"):
            network = empty_model(name, **config)
    except RuntimeError as error:  # torch's, of sizes that cannot be
        raise typer.BadParameter(str(error).splitlines()[0], param_hint="--model-arg") from None
    layers, rows, parameters = layer_counts(network), paper_rows(network), parameter_count(network)
    units = sum(layer.units or 0 for layer in layers)
    tables = {"layers": [asdict(layer) for layer in layers], "paper": [asdict(row) for row in rows]}
    cost = network_cost(network)
    print_json("info", {"model": name, "config": config, "units": units, "parameters": parameters, **cost, **tables})
    print_answer(units)
    title = _architecture({"name": name, "config": config})
    columns = ("layer", "kind", "channels", "units", "parameters", "per filter")
    print_table(title, columns, [
        (e.name, e.kind, f"{e.in_channels} -> {e.out_channels}", e.units, e.parameters, e.per_filter) for e in layers
    ])  # fmt: skip
    if rows:
        print_table("as the paper counts", ("quantity", "table", "here", "paper"), [
            (row.quantity, row.table, row.count, row.paper) for row in rows
        ])  # fmt: skip
    print_line(f"{units:,} units, {parameters:,} parameters in all, biases and normalisation included")
    _print_cost(cost)


def _print_cost(cost: Mapping[str, Any]) -> None:
    if cost["multiply_adds"] is not None:
        print_line(f"{cost['multiply_adds']:,} multiply-adds for {in_words_of(cost)}")


def _summary(checkpoint: Checkpoint, model: str | None) -> dict[str, Any]:
    header, path = checkpoint.header, checkpoint.path
    assert path is not None
    layers = [_layer(checkpoint, name) for name in checkpoint.layer_names]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "unit_counts")
    counted = [name for name in checkpoint.tensors if not name.endswith(buffers) and name not in header.tied]
    parameters = sum(checkpoint.tensors[name].numel() for name in counted)
    return {
        "file": str(path),
        "bytes": checkpoint.file_size,
        "architecture": header.architecture,
        "modules": header.modules,
        "layers": layers,
        "units": sum(entry["units"] for entry in layers),
        "parameters": parameters,
        **file_cost(checkpoint, {entry["name"]: entry["units"] for entry in layers}, model),
        "preprocessing": None if header.preprocessing is None else header.preprocessing.to_json(),
        "history": header.history,
    }


def _layer(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    import torch

    layer = checkpoint.layer(name)
    spread = torch.tensor(layer.description["dilation"])[:, None]
    distance = (spread * layer.mu).double().norm(dim=0)  # input pixels
    limit = layer.description["max_displacement"]
    at_limit = (
        (layer.mu.abs() >= limit).any(0) if limit is not None else torch.zeros(layer.mu.shape[1], dtype=torch.bool)
    )
    own = [
        t.numel()
        for key, t in checkpoint.tensors.items()
        if key.rpartition(".")[0] == name and not key.endswith("unit_counts")
    ]
    empty = distance.numel() == 0
    return {
        **layer.description,
        "units": layer.weight.numel(),
        "units_per_filter": layer.weight.numel() / layer.counts.numel(),
        "parameters": sum(own),
        "mean_displacement": None if empty else float(distance.mean()),
        "largest_on_axis": None if empty else float((spread * layer.mu).double().abs().max()),
        "largest_displacement": None if empty else float(distance.max()),
        "share_at_limit": 0.0 if empty else float(at_limit.double().mean()),
    }


def _limit(entry: dict[str, Any]) -> str | None:
    """The limit of every axis in input pixels, as the displacements beside it are."""
    if entry["max_displacement"] is None:
        return None
    y, x = (f"{entry['max_displacement'] * dilation:.4g}" for dilation in entry["dilation"])
    return y if y == x else f"{y}, {x}"


def _architecture(architecture: dict[str, Any]) -> str:
    if "imported" in architecture:
        return f"layers of a {architecture['imported']} file"
    config = ", ".join(f"{key}={value}" for key, value in architecture.get("config", {}).items())
    return f"{architecture.get('name', architecture.get('factory'))}({config})"
