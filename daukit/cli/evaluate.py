"""``daukit evaluate``: how good a checkpoint is on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.evaluate_tables import print_classification, print_deblurring, print_segmentation
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.progress import progress_bar
from daukit.cli.report import print_json, speak

EXAMPLES = (
    "daukit evaluate model.safetensors --data images",
    "daukit evaluate model.safetensors --data images --split train --json",
)


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
    split: Annotated[Literal["train", "test"], typer.Option(help="Part of the folder to evaluate on.")] = "test",
    layout: options.Layout = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a classifier's accuracy, or how well a network segments or deblurs, on a folder of images."""
    speak(json=json, quiet=quiet)
    device = options.choose_device(device)
    keep_freed_memory()
    from daukit.workflows.evaluate import FileEvaluation, evaluate_checkpoint
    from daukit.workflows.evaluate_pixels import SegmentationEvaluation

    checkpoint = options.read_source(source, model, model_arg, weights)
    with progress_bar(1) as update:
        try:
            result = evaluate_checkpoint(
                checkpoint, data, split=split, layout=layout, model=model, device=device, on_progress=update
            )
        except ValueError as error:
            raise typer.BadParameter(f"{error}; drop it", param_hint="--layout") from None
    print_json("evaluate", result)
    if isinstance(result, FileEvaluation):
        preprocessing = checkpoint.header.preprocessing
        print_classification(source.name, result, preprocessing.class_names if preprocessing else ())
    elif isinstance(result, SegmentationEvaluation):
        print_segmentation(source.name, result)
    else:
        print_deblurring(source.name, result)
