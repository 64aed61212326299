"""``daukit bake``: write a network with plain convolutions as a program that runs without daukit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import devices, options
from daukit.cli.printing import change, note, print_json, print_line, print_table, speak, wrote

if TYPE_CHECKING:
    from daukit.workflows.bake import BakedProgram

EXAMPLES = (
    "daukit bake model.safetensors -o model.pt2",
    "daukit bake model.safetensors --dry-run --json",
    "daukit bake weights.pth --model network.py:make --size 16,16 -o network.pt2",
)


def bake(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT.pt2", help="Program to write.", parser=options.file_to_write),
    ] = None,
    size: options.Size = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Replace DAU layers by plain convolutions with the same output and export the network as a program.

    The program is a torch.export file, which runs without daukit. Both networks are compared and timed.
    """
    speak(json=json, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if output is not None and output.suffix != ".pt2":
        raise typer.BadParameter(f"{output.name}: a program's name ends in .pt2", param_hint="--output")
    input_size = None if size is None else options.parse_size(size)
    device = devices.choose(device)
    from daukit.workflows.bake import bake_checkpoint

    checkpoint = options.read_source(source, model, model_arg, weights)
    written = None if dry_run else output
    result = bake_checkpoint(
        checkpoint, written, size=input_size, model=model, device=device, seed=seed, overwrite=overwrite
    )
    print_json("bake", result)
    print_program(result)


def print_program(result: BakedProgram) -> None:
    """Print what a program was made of, how exact it is and how fast."""
    rows = [(layer.name, layer.units, "x".join(map(str, layer.kernel_size))) for layer in result.layers]
    if not rows:
        note("the network has no DAU layers, so nothing was baked; the program is the network as it is")
    print_table("DAU layers, now plain convolutions", ("layer", "units", "filter"), rows)
    differences = (
        f"{result.difference:.2g} of the largest output in float64, {result.rounding:.2g} in the file's precision"
    )
    print_line(f"largest difference: {differences}")
    shape = " x ".join(map(str, result.time.input))
    print_line(f"forward pass of {shape}: {change(result.time.before.median, result.time.after.median, 'ms')}")
    if result.bytes_before is not None:
        print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")
    wrote(result.output)
    if result.output is None:
        note("dry run: nothing was written")
