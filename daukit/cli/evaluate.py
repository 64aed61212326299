"""``daukit evaluate``: how good a checkpoint is on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import devices, options, task_options
from daukit.cli.evaluate_tables import print_evaluation
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.printing import note, print_json, speak
from daukit.cli.progress import progress_bar
from daukit.distributed import here
from daukit.workflows.outputs import check_outputs

EXAMPLES = (
    "daukit evaluate model.safetensors --data images",
    "daukit evaluate model.safetensors --data images --split train --json",
    "daukit evaluate model.safetensors --data images --csv figures.csv --pictures wrong.png "
    "--compare other.safetensors",
)


_OF_PICTURES = ("--picture-count", "--compare", "--label")


def evaluate(
    source: options.Source,
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder of images to evaluate on: IDX files, CIFAR or pictures by class for a classifier, "
            "pictures for other networks.",
        ),
    ],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Part of the folder to evaluate on.")] = "test",
    layout: options.Layout = None,
    task: task_options.Task = None,
    tile: task_options.Tile = None,
    gridding: Annotated[
        str | None,
        typer.Option(
            metavar="D,D,...",
            help="Of a network that segments, measure how much of its score maps repeats with grids of these periods, "
            "the dilations that it has or replaces, in positions of its scores.",
        ),
    ] = None,
    csv: options.Csv = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FIG",
            help="Draw pictures of the folder and what the network says of them to this .png, .jpg, .pdf or .svg; of a "
            "classifier, those that it gets wrong.",
            parser=options.file_to_write,
        ),
    ] = None,
    picture_count: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Number of pictures to draw.")] = 4,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OTHER",
            help="Show beside FILE what this network says of the pictures, another file of the same task and classes; "
            "repeatable.",
        ),
    ] = None,
    label: options.Label = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a classifier's accuracy, or how well a network segments or deblurs, on a folder of images."""
    speak(json=json, quiet=quiet)
    if pictures is None:
        options.refuse_unused("this is about pictures; name a file with --pictures", *_OF_PICTURES)
    size = None if tile is None else options.parse_size(tile, "--tile")
    periods = [] if gridding is None else _periods(gridding)
    others = compare or []
    check_outputs(pictures, csv, overwrite=overwrite, dry_run=dry_run, sources=[source, data, *others])
    device = devices.choose(device)
    keep_freed_memory()
    from daukit.workflows.evaluate import evaluate_checkpoint
    from daukit.workflows.labels import check_labels

    with options.usage_of("--label"):
        check_labels(label or [], 1 + len(others))
    checkpoint = options.read_source(source, model, model_arg, weights)
    compared = [options.read_source(other, model, model_arg, weights) for other in others]
    given = {
        "--layout": layout, "--task": task, "--tile": tile, "--gridding": gridding, "--compare": compare,
        "--label": label,
    }  # fmt: skip
    with progress_bar(1) as update, task_options.naming_options(given):
        result = evaluate_checkpoint(
            checkpoint, data, split=split, layout=layout, task=task, tile=size, gridding=periods,
            csv=None if dry_run else csv, pictures=None if dry_run else pictures, picture_count=picture_count,
            compare=compared, labels=label or (), overwrite=overwrite, model=model, device=device, on_progress=update,
            ranks=here(),
        )  # fmt: skip
    print_json("evaluate", result)
    print_evaluation(source.name, result)
    if dry_run and (pictures or csv):
        note("dry run: nothing was written")


def _periods(text: str) -> list[int]:
    """The periods in ``2,4``; anything else is a usage error."""
    numbers = options.parse_numbers(text, "--gridding", 2, 64)
    if any(number % 1 for number in numbers):
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers like 2,4", param_hint="--gridding")
    if len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"{text!r} names a period twice; drop one", param_hint="--gridding")
    return [int(number) for number in numbers]
