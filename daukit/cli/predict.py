"""``daukit predict``: what a network says of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import devices, options, task_options
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.printing import note, print_answer, print_json, print_table, speak, wrote
from daukit.cli.progress import progress_bar
from daukit.texts import counted

if TYPE_CHECKING:
    from daukit.workflows.predict import PredictedPicture, Prediction

EXAMPLES = (
    "daukit predict model.safetensors pictures -o answers",
    "daukit predict model.safetensors pictures/0.png pictures/1.png --dry-run --json",
)


def predict(
    source: options.Source,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="PNG and JPEG files, and folders of them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Write into this folder: classes.csv for a classifier, else a PNG file per picture, a mask of classes "
            "or a sharp picture.",
        ),
    ] = None,
    task: task_options.Task = None,
    tile: task_options.Tile = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write what a network says of pictures: their classes, a mask of classes for each, or sharp pictures."""
    speak(json=json, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("name the folder to write to, or pass --dry-run", param_hint="--output")
    size = None if tile is None else options.parse_size(tile, "--tile")
    device = devices.choose(device)
    keep_freed_memory()
    from daukit.workflows.predict import predict_pictures

    checkpoint = options.read_source(source, model, model_arg, weights)
    with progress_bar(1) as update, task_options.naming_options({"--task": task, "--tile": tile}):
        result = predict_pictures(
            checkpoint, pictures, None if dry_run else output, task=task, tile=size, overwrite=overwrite, model=model,
            device=device, on_progress=update,
        )  # fmt: skip
    print_json("predict", result)
    _print(source.name, result)
    if dry_run:
        note("dry run: nothing was written")


def _print(called: str, result: Prediction) -> None:
    if result.task == "classification":
        rows = [_row(one) for one in result.pictures]
        written = result.output is not None
        print_table(f"{called}: the likeliest class", ("picture", "class", "probability"), rows, answer=not written)
        wrote(result.output)
        return
    files = [one.output for one in result.pictures if one.output is not None]
    for file in files:
        print_answer(file)
    if files:
        what = "mask" if result.task == "segmentation" else "picture"
        note(f"wrote {counted(len(files), what)}")


def _row(one: PredictedPicture) -> tuple[str, str, float]:
    first = one.answers[0]
    return str(one.picture), str(first.label) if first.name is None else first.name, first.probability
