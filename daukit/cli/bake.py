"""``daukit bake``: write a twin of plain convolutions, as a program that runs without daukit."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daukit.cli import options
from daukit.cli.measures import input_shape, interleave_forward
from daukit.cli.report import change, note, print_json, print_line, print_table, speak, wrote
from daukit.errors import naming

if TYPE_CHECKING:
    from torch import Tensor, nn


def bake(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT.pt2", help="torch.export program to write.", parser=options.file_to_write
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Size of the network's input, where the file does not tell it.")
    ] = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "cpu",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn DAU layers into plain convolutions, equal everywhere, and export the network as a program."""
    speak(json=json, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if output is not None and output.suffix != ".pt2":
        raise typer.BadParameter(f"{output.name}: a program's name ends in .pt2", param_hint="--output")
    input_size = None if size is None else options.parse_size(size)
    options.check_device(device)
    import torch

    from daukit.baking import bake as twin_of
    from daukit.baking import export
    from daukit.checkpoint import build_model
    from daukit.files import check_output, write_atomic
    from daukit.models.running import dtype_of, largest_difference

    written = None if dry_run else output
    if written is not None:
        check_output(written, overwrite=overwrite, sources=[source])
    checkpoint = options.read_source(source, model, model_arg, weights)
    network = build_model(checkpoint, model=model)
    shape = input_shape(checkpoint, network, input_size)
    example = torch.randn(2, *shape[1:], dtype=dtype_of(network), generator=torch.Generator().manual_seed(seed))
    foreign = {"metadata": json_text.dumps(checkpoint.metadata, sort_keys=True)} if checkpoint.metadata else {}
    with naming(str(source)):
        twin = twin_of(network)
        difference = _compare(network, example)
        rounding = largest_difference(network, twin, example)
        program = export(twin, example, {"daukit": checkpoint.header.to_json(), **foreign})
    result: dict[str, Any] = {
        "layers": _layers(network, twin),
        "difference": difference,
        "rounding": rounding,
        "time": interleave_forward({"before": network, "after": twin}, shape, device),
        "output": None if written is None else str(written),
        "bytes_before": checkpoint.file_size,
        "bytes_after": len(program),
    }
    if written is not None:
        write_atomic(written, program, overwrite=overwrite)
    print_json("bake", result)
    _print(result)


def _compare(network: nn.Module, example: Tensor) -> float:
    """How far a twin is from its network where rounding is small, in float64; refuse to write one that is none."""
    from daukit.baking import EXACT_LIMIT, bake
    from daukit.errors import DaukitError
    from daukit.models.running import copy_of, largest_difference

    exact = copy_of(network).double()
    difference = largest_difference(exact, bake(exact), example.double())
    if not difference <= EXACT_LIMIT:
        raise DaukitError(
            f"the baked network differs by {difference:.2g} of the largest output, where {EXACT_LIMIT:g} is allowed; "
            "nothing was written"
        )
    return difference


def _layers(network: nn.Module, twin: nn.Module) -> list[dict[str, Any]]:
    """Every DAU layer: its units, and the size of the filters that stand for them."""
    from torch import nn

    from daukit.models.structure import dau_layers

    result = []
    for name, layer in dau_layers(network).items():
        (taps,) = [m for m in twin.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1:]
        result.append({"name": name, "units": layer.weight.numel(), "kernel_size": list(taps.kernel_size)})
    return result


def _print(result: dict[str, Any]) -> None:
    rows = [(layer["name"], layer["units"], "x".join(map(str, layer["kernel_size"]))) for layer in result["layers"]]
    if not rows:
        note("the network has no DAU layers: nothing was baked, and the program is the network as it is")
    print_table("DAU layers, now plain convolutions", ("layer", "units", "filter"), rows)
    print_line(
        f"largest difference: {result['difference']:.2g} of the largest output in float64, "
        f"{result['rounding']:.2g} as written"
    )
    before, after = (result["time"][when]["median"] for when in ("before", "after"))
    print_line(f"time of {' x '.join(map(str, result['time']['input']))}: {change(before, after, 'ms')}")
    print_line(f"file: {change(result['bytes_before'], result['bytes_after'], 'bytes')}")
    wrote(result["output"])
    if result["output"] is None:
        note("dry run: nothing was written")
