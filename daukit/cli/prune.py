"""``daukit prune``: remove the units of small weight, or print what every threshold would remove."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options, prune_tables
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_answer, print_json, speak, wrote
from daukit.errors import naming
from daukit.workflows.outputs import check_outputs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from daukit.checkpoint import Checkpoint
    from daukit.pruning import RelativeTo, Rule
    from daukit.results import Progress
    from daukit.workflows.prune import Pruning
    from daukit.workflows.sensitivity import Sensitivity
    from daukit.workflows.sweep import Sweep

EXAMPLES = (
    "daukit prune model.safetensors --threshold 0.02 -o pruned.safetensors",
    "daukit prune model.safetensors --keep-units 80 --drop-channels --data images -o pruned.safetensors",
    "daukit prune model.safetensors --thresholds 0,0.02,0.1 --data images --figure accuracy.svg",
)


def prune(
    source: options.Source,
    output: options.Output = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]SHARE",
            help="Remove units whose |w| is below this share of the largest |w| in their layer; --relative-to compares "
            "with other units. LAYER=SHARE sets the threshold of one layer. Repeatable.",
        ),
    ] = None,
    keep_units: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Keep N units of the whole network, those of largest |w|, and remove the others."
        ),
    ] = None,
    remove: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Remove this share (0 to 1) of the network's units, smallest |w| first."
        ),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="0,0.01,...",
            help="Print how many units would stay at each of these thresholds (Table 2), and write no checkpoint.",
        ),
    ] = None,
    relative_to: Annotated[
        Literal["layer", "channel", "network", "filter"],
        typer.Option(
            help="Compare |w| with the largest |w| of the unit's layer, of its output channel, of its filter (one pair "
            "of output and input channel), or of the whole network."
        ),
    ] = "layer",
    random: Annotated[
        bool,
        typer.Option(
            "--random", help="As a control, remove randomly chosen units, as many per layer as would go by |w|."
        ),
    ] = False,
    merge_within: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="First merge units of the same filter that lie within this distance and whose weights have the same "
            "sign.",
        ),
    ] = None,
    drop_channels: Annotated[
        bool,
        typer.Option(
            "--drop-channels", help="After pruning, drop channels that are always zero or that no layer reads."
        ),
    ] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="With --thresholds and --data: prune one layer at a time and compare the accuracies."
        ),
    ] = False,
    csv: options.Csv = None,
    figure: options.Figure = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of IDX images. Prints the accuracy on its test images before and after, or at each threshold.",
        ),
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Measure how long a forward pass takes before and after pruning.")
    ] = False,
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
    """Remove the units of small weight and write a smaller checkpoint (paper, section 4.2).

    Choose the units by --threshold, --keep-units or --remove; or compare several --thresholds first.
    """
    speak(json=json, quiet=quiet)
    ways = {"--threshold": threshold, "--thresholds": thresholds, "--keep-units": keep_units, "--remove": remove}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1 or not (given or merge_within is not None or drop_channels):
        message = "give either --threshold or --thresholds, or one of --keep-units and --remove"
        raise typer.BadParameter(message, param_hint="--threshold")
    sweep = given == ["--thresholds"]
    if sweep:
        _check_sweep(sensitivity, random, has_data=data is not None)
    else:
        _check_pruning(bool(given), random, has_output=output is not None or dry_run)
    if not time:
        options.refuse_unused("only --time needs it; drop it", "--size")
    if not (time or data):
        options.refuse_unused("no network is run without --data or --time; drop it", "--device")
    if not random:
        options.refuse_unused("only --random needs it; drop it", "--seed")
    one, by_layer = _thresholds(threshold)
    wanted = [] if thresholds is None else options.parse_numbers(thresholds, "--thresholds")
    input_size = None if size is None else options.parse_size(size)
    options.check_device(device)
    chosen = seed if random else None
    read = partial(options.read_source, source, model, model_arg, weights)
    shared: dict[str, Any] = {"data": data, "model": model, "device": device, "overwrite": overwrite}
    if sweep:
        check_outputs(figure, csv, overwrite=overwrite, dry_run=dry_run, sources=[source])
        shared |= {"figure": None if dry_run else figure, "csv": None if dry_run else csv}
        control = {} if sensitivity else {"random_seed": chosen}
        _print_sweep(_swept(read(), wanted, relative_to, sensitivity=sensitivity, **control, **shared))
        if dry_run and (figure or csv):
            note("dry run: nothing was written")
        return
    from daukit.checkpoint.rewriting import is_daukit_file
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.pruning import Rule
    from daukit.workflows.prune import prune_checkpoint, prune_layer_by_layer

    written = None if dry_run else output
    if written is not None:  # before FILE is read, which may take long
        check_output(written, overwrite=overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    rule = Rule(one, relative_to, by_layer, keep_units, remove, chosen) if given else None
    needs_network = merge_within is not None or drop_channels or data or time or model or model_arg or weights
    if rule is not None and not needs_network and is_daukit_file(source):
        with naming(str(source)):
            result = prune_layer_by_layer(source, rule, output=written, overwrite=overwrite)
    else:
        checkpoint = read()
        steps: dict[str, Any] = {"merge_within": merge_within, "drop_channels": drop_channels}
        with naming(str(source)), _progress(data) as update:
            result = prune_checkpoint(
                checkpoint, rule, **steps, time=time, size=input_size, output=written, on_progress=update, **shared
            )
    _print_pruning(result, rule)


def _check_sweep(sensitivity: bool, random: bool, *, has_data: bool) -> None:
    """Make it a usage error to give options that a sweep has no use for."""
    options.refuse_unused("a sweep writes no file; give one --threshold to write it", "--output")
    message = "a sweep only removes units; write a file with this, and sweep that file"
    options.refuse_unused(message, "--merge-within", "--drop-channels", "--time")
    if not has_data:
        options.refuse_unused("this needs images; name their folder by --data", "--sensitivity", "--random")
    if sensitivity and random:
        raise typer.BadParameter(
            "--sensitivity removes units of small weight, not random ones; drop it", param_hint="--random"
        )


def _check_pruning(removes: bool, random: bool, *, has_output: bool) -> None:
    """Make it a usage error to give options that one pruning has no use for."""
    options.refuse_unused("this belongs to a sweep; give --thresholds", "--sensitivity", "--csv", "--figure")
    if random and not removes:
        message = "say how many units: by --threshold, --keep-units or --remove"
        raise typer.BadParameter(message, param_hint="--random")
    if not removes:
        options.refuse_unused("no unit is removed by weight here; drop it", "--relative-to")
    if not has_output:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")


def _swept(
    checkpoint: Checkpoint, thresholds: list[float], relative_to: RelativeTo, *, sensitivity: bool, **shared: Any
) -> Sweep | Sensitivity:
    from daukit.workflows.sensitivity import measure_sensitivity
    from daukit.workflows.sweep import sweep_thresholds

    with _progress(shared["data"]) as update:
        if sensitivity:
            return measure_sensitivity(checkpoint, thresholds, relative_to, on_progress=update, **shared)
        return sweep_thresholds(checkpoint, thresholds, relative_to, on_progress=update, **shared)


def _thresholds(items: list[str] | None) -> tuple[float | None, dict[str, float]]:
    """Parse ``0.02`` and ``conv1=0.1``: the threshold of all layers, and those of single ones."""
    one, by_layer = None, {}
    for item in items or ():
        layer, _, number = item.rpartition("=")
        values = options.parse_numbers(number, "--threshold")
        if len(values) > 1:
            raise typer.BadParameter(
                f"{number!r} is more than one number; for a sweep, give --thresholds", param_hint="--threshold"
            )
        if layer in by_layer or (not layer and one is not None):
            whose = f"of {layer}" if layer else "of all layers"
            raise typer.BadParameter(f"the threshold {whose} is given twice", param_hint="--threshold")
        if layer:
            by_layer[layer] = values[0]
        else:
            one = values[0]
    return one, by_layer


def _progress(data: Path | None) -> AbstractContextManager[Progress | None]:
    """A bar for accuracies, the part that takes long; none where none are measured."""
    return nullcontext() if data is None else progress_bar(1)


def _print_pruning(result: Pruning, rule: Rule | None) -> None:
    print_json("prune", result)
    prune_tables.print_pruning(result, rule)
    wrote(result.output)
    if result.output is None:
        print_answer(result.units_after)
        note("dry run: nothing was written")


def _print_sweep(result: Sweep | Sensitivity) -> None:
    print_json("prune", result)
    prune_tables.print_sweep(result, answer=not (result.csv or result.figure))
    wrote(result.csv, result.figure)
