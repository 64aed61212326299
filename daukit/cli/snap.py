"""``daukit snap``: move units to whole pixels, where reading them costs a third, and refit their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daukit.cli import devices, options, snap_tables
from daukit.cli.printing import note, print_answer, print_json, speak, wrote
from daukit.cli.progress import progress_bar
from daukit.cli.task_options import Task, check_images

if TYPE_CHECKING:
    from daukit.workflows.snap import Snapping

EXAMPLES = (
    "daukit snap model.safetensors -o snapped.safetensors",
    "daukit snap model.safetensors --data images --time -o snapped.safetensors",
    "daukit snap model.safetensors --layer conv2 --to nearest --dry-run --json",
)


def snap(
    source: options.Source,
    output: options.Output = None,
    to: Annotated[
        Literal["best", "nearest"],
        typer.Option(
            help="Move a unit to the nearest whole pixel, or to the best one of the 3x3 around: where the refitted "
            "filter is nearest to what it was."
        ),
    ] = "best",
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Snap this layer, and leave the others. Repeatable. If omitted, all."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of images. Refits weights so that outputs of layers change least on its training images "
            "(or test images, if it has no others), and prints the accuracy, mean IoU or PSNR on its test images if "
            "they have labels.",
        ),
    ] = None,
    layout: options.Layout = None,
    task: Task = None,
    match: Annotated[
        Literal["filters", "outputs"],
        typer.Option(
            help="With --data, refit weights so that the filters change least, as without, or the outputs of layers on "
            "its images."
        ),
    ] = "outputs",
    images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of images of --data to refit weights on.")
    ] = 256,
    time: Annotated[
        bool, typer.Option("--time", help="Measure how long a forward pass takes before and after snapping.")
    ] = False,
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
    """Move units to whole pixels, where reading costs a third, and refit the weights of every filter.

    The layers get whole_pixels=True; daukit train --initial-checkpoint OUT wins back more of the accuracy.
    """
    speak(json=json, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if data is None:
        options.refuse_unused("filters are matched without --data; name a folder of images, or drop it", "--match")
        options.refuse_unused("no folder is read without --data; drop it", "--layout", "--task")
    if data is None or match == "filters":
        options.refuse_unused("no weights are refitted on images here; drop it", "--images", "--seed")
    if not time:
        options.refuse_unused("only --time needs it; drop it", "--size")
    if not (time or data):
        options.refuse_unused("no network is run without --data or --time; drop it", "--device")
    input_size = None if size is None else options.parse_size(size)
    device = devices.choose(device, used=time or data is not None)
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.workflows.snap import snap_checkpoint

    written = None if dry_run else output
    if written is not None:  # before FILE is read, which may take long
        check_output(written, overwrite=overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    checkpoint = options.read_source(source, model, model_arg, weights)
    check_images(layout, task, checkpoint)
    chosen = options.choose_layers(layer, checkpoint.layer_names, source) if layer else None
    with progress_bar(1) as update:
        result = snap_checkpoint(
            checkpoint, to=to, layers=chosen, data=data, layout=layout, task=task, match=match if data else None,
            images=images, time=time, size=input_size, seed=seed, output=written, overwrite=overwrite, model=model,
            device=device, on_progress=update,
        )  # fmt: skip
    _print(result)


def _print(result: Snapping) -> None:
    print_json("snap", result)
    snap_tables.print_snapping(result)
    wrote(result.output)
    if result.output is None:
        print_answer(sum(layer.units_after for layer in result.layers))
        note("dry run: nothing was written")
