"""``daukit convert``: import a trained file of Caffe, TensorFlow or dcls; give a network DAU layers; write a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.convert_network import NetworkOptions, convert_network
from daukit.cli.report import note, print_json, print_line, print_table, speak, wrote

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint

PerLayer = dict[str, Any] | None


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A .caffemodel, a TensorFlow checkpoint or .npz, a state dict with dcls layers; a daukit checkpoint, "
            "or a state dict with --model.",
        ),
    ],
    output: options.Output = None,
    from_: Annotated[
        Literal["caffe", "tensorflow", "dcls"] | None,
        typer.Option("--from", help="What wrote it; recognised if not given."),
    ] = None,
    prototxt: Annotated[
        Path | None, typer.Option(help="Caffe: the network's text; by default the one beside SOURCE.")
    ] = None,
    offsets: Annotated[
        Literal["auto", "centred", "corner"], typer.Option(help="Caffe: where in the window displacements count from.")
    ] = "auto",
    moving_averages: Annotated[
        bool, typer.Option("--moving-averages", help="TensorFlow: take the variables' moving averages.")
    ] = False,
    dcls_version: Annotated[
        Literal["v0", "v1", "max", "gauss"] | None, typer.Option(help="dcls: the layers' version; needed.")
    ] = None,
    sigma_axes: Annotated[
        Literal["equal", "mean", "split"],
        typer.Option(help="dcls: Gaussians with a sigma per axis are refused, averaged, or split into several units."),
    ] = "equal",
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]H[,W]",
            help="Side of the window: TensorFlow's max_kernel_size, dcls's dilated_kernel_size; repeatable.",
        ),
    ] = None,
    stride: Annotated[
        list[str] | None, typer.Option(metavar="[LAYER=]N", help="TensorFlow, dcls: the layers' stride; repeatable.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option(metavar="[LAYER=]N", help="dcls: the layers' groups; repeatable.")
    ] = None,
    substitute: Annotated[
        bool, typer.Option("--substitute", help="Put DAU layers in the place of the network's convolutions.")
    ] = False,
    units: Annotated[
        int | None, typer.Option(min=1, help="Substitute: units per (output, input) pair. Default: 2.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Substitute: layers by name, as 'layer3.*.conv2'; repeatable."),
    ] = None,
    kernel_size: Annotated[
        int | None, typer.Option(min=1, help="Substitute: only kernels of this size. Default: all but 1x1.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Substitute: standard deviation of the units.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Substitute: fit the units to the trained kernels.")] = False,
    units_table: Annotated[
        bool, typer.Option("--units-table", help="Only print how many units the trained kernels would need.")
    ] = False,
    seed: options.Seed = 0,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder with config.json and model.safetensors (Hugging Face).")
    ] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Import a trained file of Caffe, TensorFlow or dcls, or give a network DAU layers; write a checkpoint."""
    speak(json=json, quiet=quiet)
    if output is None and not dry_run and not units_table:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    asked = NetworkOptions(substitute, units_table, units, where, kernel_size, sigma, fit, seed)
    asked.check()
    windows = _per_layer(window, "--window", _size)
    strides, group_counts = _per_layer(stride, "--stride", _count), _per_layer(groups, "--groups", _count)
    target = None if dry_run or units_table else output
    if target is not None:
        _check_target(target, folder, overwrite)
    if from_ is None and (substitute or units_table or model is not None or _is_own(source)):
        with options.blame(str(source)):
            network, result = convert_network(source, model, model_arg, asked, weights)
        if network is not None:
            _finish(network, result, target, folder, overwrite)
        return
    from daukit.importers import import_checkpoint

    with options.blame(str(source)):
        checkpoint = import_checkpoint(
            source, source=from_, prototxt=prototxt, offsets=offsets, moving_averages=moving_averages,
            version=dcls_version, sigma_axes=sigma_axes, window=windows, stride=strides, groups=group_counts,
        )  # fmt: skip
    summary = _summary(checkpoint, source)
    for sentence in summary["notes"]:
        note(sentence)
    _print_imported(source, summary)
    _finish(checkpoint, summary, target, folder, overwrite)


def _is_own(source: Path) -> bool:
    """Whether SOURCE is a daukit file, or a folder."""
    from daukit.checkpoint import open
    from daukit.errors import CheckpointError

    try:
        return source.is_dir() or open(source).header is not None
    except CheckpointError:
        return False


def _check_target(target: Path, folder: bool, overwrite: bool) -> None:
    """Refuse an output that cannot be written before any work is done."""
    from daukit.files import check_output

    if folder and target.is_dir():
        for name in ("model.safetensors", "config.json"):
            check_output(target / name, overwrite=overwrite)
    else:
        check_output(target, overwrite=overwrite and not folder)


def _finish(checkpoint: Checkpoint, result: dict[str, Any], target: Path | None, folder: bool, overwrite: bool) -> None:
    """Write the checkpoint, if there is an output, and say so."""
    from daukit.checkpoint import write, write_folder

    result["output"] = None
    if target is not None:
        size = (write_folder if folder else write)(checkpoint, target, overwrite=overwrite)
        result |= {"output": str(target), "bytes": size}
    print_json("convert", result)
    if target is None:
        note("dry run: nothing was written")
        return
    print_line(f"file: {result['bytes']:,} bytes")
    wrote(target)


def _print_imported(source: Path, result: dict[str, Any]) -> None:
    rows = [
        (
            e["name"], f"{e['in_channels']} -> {e['out_channels']}", e["units"], e["form"],
            "per unit" if e["sigma"] is None else e["sigma"], e["max_displacement"], e["largest_displacement"],
        )
        for e in result["layers"]
    ]  # fmt: skip
    columns = ("layer", "channels", "units", "form", "sigma", "limit (px)", "max |mu| (px)")
    network = result["architecture"].get("name", "layers of a network that daukit does not know")
    print_table(f"{source.name}, {result['source']}: {network}", columns, rows)
    print_line(f"{result['units']:,} units, {result['other_tensors']:,} other tensors")


def _summary(checkpoint: Checkpoint, source: Path) -> dict[str, Any]:
    header = checkpoint.header
    arguments = header.history[-1]["arguments"]
    layers = []
    for name in checkpoint.layer_names:
        layer = checkpoint.layer(name)
        largest = float(layer.mu.double().norm(dim=0).max()) if layer.weight.numel() else None
        layers.append({**layer.description, "units": layer.weight.numel(), "largest_displacement": largest})
    own = tuple(f"{name}." for name in checkpoint.layer_names)
    return {
        "file": str(source),
        "source": arguments["source"],
        "architecture": header.architecture,
        "layers": layers,
        "units": sum(layer["units"] for layer in layers),
        "other_tensors": sum(not name.startswith(own) for name in checkpoint.tensors),
        "preprocessing": None if header.preprocessing is None else header.preprocessing.to_json(),
        "notes": arguments.get("notes", []),
    }


def _per_layer(items: list[str] | None, option: str, parse: Callable[[str], Any]) -> PerLayer:
    """``LAYER=VALUE`` items by layer, and a ``VALUE`` for all others under ``"*"``; a wrong one is a usage error."""
    values = {}
    for item in items or ():
        name, _, text = item.rpartition("=")
        try:
            values[name or "*"] = parse(text)
        except ValueError:
            kind = "a size like 9 or 9,5" if parse is _size else "a whole number above 0"
            raise typer.BadParameter(f"{text!r} is not {kind}", param_hint=option) from None
    return values or None


def _size(text: str) -> tuple[int, int]:
    sides = [_count(part) for part in text.split(",")]
    if len(sides) > 2:
        raise ValueError
    return sides[0], sides[-1]


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value
