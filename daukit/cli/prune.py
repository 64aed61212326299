"""``daukit prune``: remove the units of small weight, or print what every threshold would remove."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.prune_run import Job, run
from daukit.cli.prune_sweep import Sweep, run_sweep
from daukit.cli.report import speak


def prune(
    source: options.Source,
    output: options.Output = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]SHARE",
            help="Remove units with |w| below this share of the reference; LAYER=... for one layer. Repeatable.",
        ),
    ] = None,
    keep_units: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep exactly so many units of the network.")
    ] = None,
    remove: Annotated[
        float | None, typer.Option(min=0, max=1, help="Remove this share of the network's units, to the nearest unit.")
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(metavar="0,0.01,...", help="Print what each threshold would remove (Table 2); write no model."),
    ] = None,
    relative_to: Annotated[
        Literal["layer", "channel", "network", "filter"], typer.Option(help="The reference is the largest |w| of this.")
    ] = "layer",
    random: Annotated[
        bool, typer.Option("--random", help="As a control, remove as many units of every layer at random.")
    ] = False,
    merge_within: Annotated[
        float | None,
        typer.Option(min=0, metavar="PIXELS", help="First merge units of a filter that lie so close, of equal sign."),
    ] = None,
    drop_channels: Annotated[
        bool, typer.Option("--drop-channels", help="Then drop channels that are always zero, or that nobody reads.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Of a sweep with --data: prune every layer alone.")
    ] = False,
    csv: options.Csv = None,
    figure: options.Figure = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of IDX test images: measure the accuracy before and after, or of the sweep."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Measure the network's time before and after.")] = False,
    size: options.Size = None,
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
    """Remove the units of small weight and write a smaller checkpoint (paper, section 4.2)."""
    speak(json=json, quiet=quiet)
    ways = {"--threshold": threshold, "--thresholds": thresholds, "--keep-units": keep_units, "--remove": remove}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1 or not (given or merge_within is not None or drop_channels):
        message = "give either --threshold or --thresholds, or one of --keep-units and --remove"
        raise typer.BadParameter(message, param_hint="--threshold")
    sweep = given == ["--thresholds"]
    _refuse(sweep, {"--output": output}, "a sweep writes no file; give one --threshold to write it")
    changes = {"--merge-within": merge_within, "--drop-channels": drop_channels, "--time": time}
    _refuse(sweep, changes, "a sweep only removes units; do this to a file and sweep that")
    _refuse(sweep and data is None, {"--sensitivity": sensitivity, "--random": random}, "name its images by --data")
    _refuse(sensitivity, {"--random": random}, "sensitivity is about the units of small weight")
    of_sweep = {"--sensitivity": sensitivity, "--csv": csv, "--figure": figure}
    _refuse(not sweep, of_sweep, "this belongs to a sweep; give --thresholds")
    _refuse(not given, {"--random": random}, "say how many units: by --threshold, --keep-units or --remove")
    if not (sweep or output or dry_run):
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if not random:
        options.refuse_unused("only --random needs it; drop it", "--seed")
    if not given:
        options.refuse_unused("nothing is removed for its weight; drop it", "--relative-to")
    if not time:
        options.refuse_unused("only --time needs it; drop it", "--size")
    if not (time or data):
        options.refuse_unused("no network is run without --data or --time; drop it", "--device")
    one, by_layer = _thresholds(threshold)
    wanted = [] if thresholds is None else options.parse_numbers(thresholds, "--thresholds")
    input_size = None if size is None else options.parse_size(size)
    options.check_device(device)
    from daukit.pruning import Rule

    chosen = seed if random else None
    if sweep:
        told = Sweep(
            wanted,
            relative_to,
            chosen,
            sensitivity,
            data,
            model,
            model_arg,
            weights,
            device,
            csv,
            figure,
            overwrite,
            dry_run,
        )
        run_sweep(source, told)
        return
    rule = Rule(one, relative_to, by_layer, keep_units, remove, chosen) if given else None
    written = None if dry_run else output
    job = Job(
        rule, merge_within, drop_channels, data, time, input_size, model, model_arg, weights, device, written, overwrite
    )  # fmt: skip
    run(source, job)


def _refuse(when: bool, named: Mapping[str, object], why: str) -> None:
    """Make it a usage error that one of the ``named`` options was given."""
    for name, value in named.items():
        if when and value is not None and value is not False:
            raise typer.BadParameter(why, param_hint=name)


def _thresholds(items: list[str] | None) -> tuple[float | None, dict[str, float]]:
    """Parse ``0.02`` and ``conv1=0.1``: the threshold of all layers, and those of single ones."""
    one, by_layer = None, {}
    for item in items or ():
        layer, _, number = item.rpartition("=")
        values = options.parse_numbers(number, "--threshold")
        if len(values) > 1:
            raise typer.BadParameter(f"{number!r} is several; a sweep is --thresholds", param_hint="--threshold")
        if layer in by_layer or (not layer and one is not None):
            whose = f"of {layer}" if layer else "of all layers"
            raise typer.BadParameter(f"the threshold {whose} is given twice", param_hint="--threshold")
        if layer:
            by_layer[layer] = values[0]
        else:
            one = values[0]
    return one, by_layer
