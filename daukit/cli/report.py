"""``daukit report``: a page about a network, to look at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import devices, options
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.printing import note, print_answer, print_json, print_table, speak, wrote
from daukit.cli.progress import progress_bar
from daukit.cli.task_options import Task, check_images

if TYPE_CHECKING:
    from daukit.workflows.report_results import Report

EXAMPLES = (
    "daukit report model.safetensors -o report.html",
    "daukit report model.safetensors --compare other.safetensors --data images -o report.html",
    "daukit report model.safetensors --images 0 --json",
)


def report(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PAGE", help="Write the page to this .html.", parser=options.file_to_write
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="OTHER", help="Show this file beside FILE, and what moved from it to FILE; repeatable."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure scores, the pruning curve and receptive fields on the test images of this folder. If "
            "omitted, fields are measured on noise.",
        ),
    ] = None,
    layout: options.Layout = None,
    task: Task = None,
    thresholds: Annotated[
        str, typer.Option(metavar="0,0.01,...", help="Thresholds of the pruning curve.")
    ] = "0,0.01,0.02,0.05,0.1,0.15,0.2,0.25,0.3",
    images: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of images for receptive fields; 0 leaves them out.")
    ] = 8,
    size: options.Size = None,
    time: Annotated[bool, typer.Option("--time", help="Time the forward pass, as it is and prepared.")] = False,
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
    """Make a page of all that there is to say of a network: one file, which opens in any browser and asks nobody.

    It shows what the file is and how it was made, where units are and what moved, what pruning would leave, and what
    layers see.
    """
    speak(json=json, quiet=quiet)
    if output is None and not (json or dry_run):
        raise typer.BadParameter("name the page to write; or pass --json or --dry-run", param_hint="--output")
    _check_unused(has_data=data is not None, images=images, time=time)
    device = devices.choose(device)
    shape = None if size is None else options.parse_size(size)
    chosen = options.parse_numbers(thresholds, "--thresholds")
    if output is not None:
        _check_page(output, overwrite=overwrite, dry_run=dry_run, sources=[source, *(compare or [])])
    keep_freed_memory()
    paths = [source, *(compare or [])]
    nameless = [path for path in paths if options.needs_model(path)] or [source]  # which says that it needs none
    checkpoint, *others = (
        options.read_source(path, *((model, model_arg, weights) if path in nameless else (None, None, None)))
        for path in paths
    )
    check_images(layout, task, checkpoint)
    from daukit.workflows.report import make_report

    with options.usage_of("--thresholds"), progress_bar(1) as update:
        result = make_report(
            checkpoint, compare=others, data=data, layout=layout, task=task, thresholds=chosen,
            images=images, size=shape, time=time, model=model, device=device, seed=seed,
            output=None if dry_run else output, overwrite=overwrite, on_progress=update,
        )  # fmt: skip
    print_json("report", result)
    _print(result, answer=output is None or dry_run)
    wrote(result.output)
    if dry_run:
        note("dry run: nothing was written")


def _check_unused(*, has_data: bool, images: int, time: bool) -> None:
    """Make it a usage error to say how to do what is not done."""
    if not has_data:
        options.refuse_unused("no folder is read without --data; drop it", "--layout", "--task")
    if not images:
        options.refuse_unused("nothing is random without receptive fields; drop it", "--seed")
    if not time and (has_data or not images):
        options.refuse_unused("it is the size of noise, of which there is none; drop it", "--size")
    if not (has_data or images or time):
        options.refuse_unused("no network is run; drop it", "--device")


def _check_page(output: Path, *, overwrite: bool, dry_run: bool, sources: list[Path]) -> None:
    """Refuse before the work what could not be written after it."""
    from daukit.errors import OutputError
    from daukit.files import check_output
    from daukit.workflows.report import SUFFIXES

    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{output}: a page is .html; give it that suffix")
    if not dry_run:
        check_output(output, overwrite=overwrite, sources=sources)


def _print(result: Report, *, answer: bool) -> None:
    """The totals of every network, and what could not be had."""
    from daukit.workflows.labels import labels_of  # which imports torch, as the work before has done

    networks = (result, *result.compare)
    labels = labels_of([one.info.file or "the model" for one in networks])
    rows = [
        (label, one.info.units, one.info.parameters, one.info.bytes)
        for label, one in zip(labels, networks, strict=True)
    ]
    print_table("Networks", ("file", "units", "parameters", "bytes"), rows)
    if answer:
        print_answer(result.info.units)
    for one in networks:
        for missing in one.missing:
            note(f"no {missing.part}: {missing.reason}")
