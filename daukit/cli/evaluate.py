"""``daukit evaluate``: accuracy of a checkpoint on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.progress import progress_bar
from daukit.cli.report import print_answer, print_json, print_table, speak

EXAMPLES = (
    "daukit evaluate model.safetensors --data images",
    "daukit evaluate model.safetensors --data images --split train --json",
)


def evaluate(
    source: options.Source,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of images to evaluate on: IDX files, CIFAR-10 or CIFAR-100.")
    ],
    split: Annotated[Literal["train", "test"], typer.Option(help="Part of the folder to evaluate on.")] = "test",
    layout: options.Layout = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    device: options.Device = "cpu",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a classifier's accuracy on a folder of images, with the preprocessing stored in its file."""
    speak(json=json, quiet=quiet)
    options.check_device(device)
    keep_freed_memory()
    from daukit.workflows.evaluate import evaluate_checkpoint

    checkpoint = options.read_source(source, model, model_arg, weights)
    with progress_bar(1) as update:
        result = evaluate_checkpoint(
            checkpoint, data, split=split, layout=layout, model=model, device=device, on_progress=update
        )
    print_json("evaluate", result)
    print_answer(result.accuracy)
    preprocessing = checkpoint.header.preprocessing
    names = preprocessing.class_names if preprocessing else ()
    rows = [
        (names[i] if i < len(names) else str(i), None if accuracy is None else f"{accuracy:.2%}")
        for i, accuracy in enumerate(result.class_accuracy)
    ]
    rows.append((f"all {result.images:,} images", f"{result.accuracy:.2%}"))
    print_table(f"{source.name}: mean loss {result.loss:.4f}", ("class", "accuracy"), rows)
