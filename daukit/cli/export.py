"""``daukit export``: write a network for other programs, as ONNX or as a program of torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import devices, options
from daukit.cli.bake import print_program
from daukit.cli.printing import change, note, print_json, print_line, print_table, speak, wrote

if TYPE_CHECKING:
    from daukit.workflows.export import OnnxExport

EXAMPLES = (
    "daukit export model.safetensors -o model.onnx",
    "daukit export model.safetensors --with-preprocessing --time -o model.onnx",
    "daukit export model.safetensors -o model.pt2",
)


def export(
    source: options.Source,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.onnx",
            help="Write the network to this .onnx, or as a program to this .pt2.",
            parser=options.file_to_write,
        ),
    ],
    size: options.Size = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing", help="Let the ONNX file take pixels, uint8, and do the preprocessing itself."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option(help="Compare the ONNX file with the network by onnxruntime before it is written, or not.")
    ] = True,
    time: Annotated[bool, typer.Option("--time", help="Time the forward pass by onnxruntime beside torch's.")] = False,
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
    """Write a network for other programs, with plain convolutions in place of its DAU layers.

    An .onnx is compared with the network by onnxruntime before it is written. A .pt2 is what `daukit bake` writes.
    """
    speak(json=json, quiet=quiet)
    if output.suffix not in (".onnx", ".pt2"):
        raise typer.BadParameter(f"{output.name}: its name ends in .onnx or .pt2", param_hint="--output")
    is_program = output.suffix == ".pt2"
    if is_program:
        only_onnx = ("--with-preprocessing", "--verify", "--time")
        options.refuse_unused("this is about .onnx files; drop it, or write one", *only_onnx)
    else:
        options.refuse_unused("onnxruntime runs on the CPU here; drop it", "--device")
    if not (is_program or verify or time):
        options.refuse_unused("nothing is run on noise; drop it", "--seed")
    shape = None if size is None else options.parse_size(size)
    written = None if dry_run else output
    if not is_program:
        from daukit.workflows.export import export_onnx

        checkpoint = options.read_source(source, model, model_arg, weights)
        result = export_onnx(
            checkpoint, written, size=shape, with_preprocessing=with_preprocessing, verify=verify, time=time,
            model=model, seed=seed, overwrite=overwrite,
        )  # fmt: skip
        print_json("export", result)
        _print(result)
        return
    device = devices.choose(device)
    from daukit.workflows.bake import bake_checkpoint

    checkpoint = options.read_source(source, model, model_arg, weights)
    program = bake_checkpoint(
        checkpoint, written, size=shape, model=model, device=device, seed=seed, overwrite=overwrite
    )
    print_json("export", program)
    print_program(program)


def _print(result: OnnxExport) -> None:
    rows = [(layer.name, layer.units, "x".join(map(str, layer.kernel_size))) for layer in result.layers]
    print_table("DAU layers, now plain convolutions", ("layer", "units", "filter"), rows)
    takes = "pixels, uint8" if result.pixels else "preprocessed images"
    print_line(f"opset {result.opset}; input of {takes}: {' x '.join(map(str, result.input))}")
    if result.difference is not None:
        print_line(
            f"onnxruntime differs by {result.difference:.2g} of the largest output, on {len(result.checked)} inputs"
        )
    if result.time is not None:
        times = result.time
        rows_of_times = [
            (name, taken.lower, taken.median, taken.upper)
            for name, taken in (
                ("the network", times.network), ("prepared", times.prepared), ("baked", times.baked),
                ("onnxruntime", times.onnxruntime),
            )
        ]  # fmt: skip
        title = f"Forward pass of {' x '.join(map(str, times.input))}, ms"
        print_table(title, ("by", "lower quartile", "median", "upper quartile"), rows_of_times)
    if result.bytes_before is not None:
        print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")
    wrote(result.output)
    if result.output is None:
        note("dry run: nothing was written")
