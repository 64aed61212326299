"""``daukit info``: what a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daukit.cli import options
from daukit.cli.report import print_json, print_line, print_table

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint


def info(
    source: options.Source,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    json: options.Json = False,
) -> None:
    """Print a checkpoint's layers, displacements, totals and history."""
    checkpoint = options.read_source(source, model, model_arg)
    result = _summary(checkpoint)
    if json:
        print_json(result)
        return
    rows = [
        (
            e["name"], f"{e['in_channels']} -> {e['out_channels']}", e["units"], f"{e['units_per_filter']:.3g}",
            e["parameters"], "learned" if e["sigma"] is None else e["sigma"], e["max_displacement"],
            e["mean_displacement"], e["largest_displacement"], f"{e['share_at_limit']:.1%}",
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
        "limit (px)",
        "mean |mu| (px)",
        "max |mu| (px)",
        "at limit",
    )
    print_table(f"{source.name}: {_architecture(result['architecture'])}", columns, rows)
    print_line(f"{result['units']:,} units, {result['parameters']:,} parameters in all, {result['bytes']:,} bytes")
    for entry in result["history"]:
        arguments = ", ".join(f"{key}={value}" for key, value in entry["arguments"].items())
        print_line(f"{entry['date']}  {entry['operation']} ({arguments})  daukit {entry['version']}")


def _summary(checkpoint: Checkpoint) -> dict[str, Any]:
    header, path = checkpoint.header, checkpoint.path
    assert path is not None
    layers = [_layer(checkpoint, name) for name in checkpoint.layer_names]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "unit_counts")
    parameters = sum(t.numel() for name, t in checkpoint.tensors.items() if not name.endswith(buffers))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "architecture": header.architecture,
        "modules": header.modules,
        "layers": layers,
        "units": sum(entry["units"] for entry in layers),
        "parameters": parameters,
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
        "largest_displacement": None if empty else float(distance.max()),
        "share_at_limit": 0.0 if empty else float(at_limit.double().mean()),
    }


def _architecture(architecture: dict[str, Any]) -> str:
    config = ", ".join(f"{key}={value}" for key, value in architecture.get("config", {}).items())
    return f"{architecture.get('name', architecture.get('factory'))}({config})"
