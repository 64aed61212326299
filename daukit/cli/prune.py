"""``daukit prune``: remove the units of small weight, or print what every threshold would remove."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from daukit.cli import devices, options, prune_tables
from daukit.cli import prune_options as own
from daukit.cli.printing import note, print_answer, print_json, speak, wrote
from daukit.cli.progress import progress_bar
from daukit.cli.task_options import Task, check_images
from daukit.errors import naming
from daukit.workflows.outputs import check_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from daukit.checkpoint import Checkpoint
    from daukit.datasets import Layout, TaskName
    from daukit.pruning import Rule
    from daukit.results import Progress
    from daukit.workflows.iterate import Iteration
    from daukit.workflows.prune import Pruning
    from daukit.workflows.sensitivity import Sensitivity
    from daukit.workflows.sweep import Sweep

EXAMPLES = (
    "daukit prune model.safetensors --threshold 0.02 -o pruned.safetensors",
    "daukit prune model.safetensors --macs 0.8 --score taylor --data images --drop-channels -o pruned.safetensors",
    "daukit prune model.safetensors --thresholds 0,0.02,0.1 --data images --figure accuracy.svg",
)


def prune(
    source: options.Source,
    output: options.Output = None,
    threshold: own.Threshold = None,
    keep_units: own.KeepUnits = None,
    remove: own.Remove = None,
    macs: own.Macs = None,
    time_budget: own.TimeBudget = None,
    thresholds: own.Thresholds = None,
    score: own.ScoreName = "magnitude",
    relative_to: own.Reference = "layer",
    random: own.Random = False,
    merge_within: own.MergeWithin = None,
    drop_channels: own.DropChannels = False,
    recalibrate: own.Recalibrate = None,
    split: own.Split = "train",
    iterate: own.Iterate = None,
    epochs_between: own.EpochsBetween = None,
    train_arg: own.TrainArg = None,
    resume: own.Resume = False,
    sensitivity: own.Sensitivity = False,
    csv: options.Csv = None,
    figure: options.Figure = None,
    data: own.Data = None,
    layout: options.Layout = None,
    task: Task = None,
    time: own.Time = False,
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
    """Remove the units of small weight and write a smaller checkpoint (paper, section 4.2).

    Choose the units by --threshold, or by a budget: --keep-units, --remove, --macs or --time-budget; or compare several
    --thresholds first. --score compares units by something else than their weight.
    """
    speak(json=json, quiet=quiet)
    one, by_layer = _thresholds(threshold)
    wanted = [] if thresholds is None else options.parse_numbers(thresholds, "--thresholds")
    ways = {"--threshold": threshold, "--thresholds": thresholds, "--keep-units": keep_units, "--remove": remove}
    ways |= {"--macs": macs, "--time-budget": time_budget}
    way = own.check_ways(ways, others=merge_within is not None or drop_channels or recalibrate is not None)
    sweep, in_rounds = way == "--thresholds", iterate is not None
    if sweep:
        own.check_sweep(sensitivity, random, has_data=data is not None)
    else:
        own.check_pruning(way, random, has_output=output is not None or dry_run)
    if in_rounds:
        own.check_rounds(way, epochs_between, has_data=data is not None, has_output=output is not None)
    own.check_score(score, removes=way is not None, random=random, has_data=data is not None)
    if not (score == "taylor" or recalibrate):
        options.refuse_unused("only --score taylor and --recalibrate need it; drop it", "--split")
    network = data is not None or recalibrate is not None
    own.check_unused(way, score, random=random, rounds=in_rounds, time=time, network=network)
    input_size = None if size is None else options.parse_size(size)
    device = devices.choose(device, used=network or time or time_budget is not None)
    chosen = seed if random or score == "random" else None
    read = partial(_read, source, model, model_arg, weights, layout, task)
    shared: dict[str, Any] = {
        "data": data, "layout": layout, "split": split, "model": model, "device": device, "overwrite": overwrite,
    }  # fmt: skip
    if sweep:
        outputs = {"figure": None if dry_run else figure, "csv": None if dry_run else csv}
        check_outputs(figure, csv, overwrite=overwrite, dry_run=dry_run, sources=[source])
        how: dict[str, Any] = {"score": score, "relative_to": relative_to, "recalibrate": recalibrate}
        how["seed" if sensitivity else "random_seed"] = (chosen or 0) if sensitivity else chosen
        _print_sweep(_swept(read(), wanted, sensitivity=sensitivity, task=task, **how, **outputs, **shared))
        if dry_run and (figure or csv):
            note("dry run: nothing was written")
        return
    from daukit.pruning import Rule

    rule = Rule(one, relative_to, by_layer, keep_units, remove, chosen, score, macs, time_budget) if way else None
    if in_rounds:
        assert rule is not None and output is not None  # by check_rounds
        training = options.parse_values(train_arg, "--train-arg")
        rounds = {"rounds": iterate, "epochs_between": epochs_between, "resume": resume, "dry_run": dry_run}
        _print_rounds(_iterated(source, read, rule, training, output=output, size=input_size, **rounds, **shared))
        return
    steps: dict[str, Any] = {
        "task": task,
        "merge_within": merge_within,
        "drop_channels": drop_channels,
        "recalibrate": recalibrate,
    }
    steps |= {"time": time, "size": input_size, "output": None if dry_run else output}
    named = bool(model or model_arg or weights)
    _print_pruning(_pruned(source, read, rule, named=named, **steps, **shared), rule)


def _read(
    source: Path,
    model: str | None,
    model_arg: list[str] | None,
    weights: str | None,
    layout: Layout | None,
    task: TaskName | None,
) -> Checkpoint:
    """Read FILE; a layout or task that is not its network's is a usage error."""
    checkpoint = options.read_source(source, model, model_arg, weights)
    check_images(layout, task, checkpoint)
    return checkpoint


def _pruned(source: Path, read: Callable[[], Checkpoint], rule: Rule | None, *, named: bool, **how: Any) -> Pruning:
    """Prune once: layer by layer where the rest of the network is not needed."""
    from daukit.checkpoint.rewriting import is_daukit_file
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.workflows.prune import prune_checkpoint, prune_layer_by_layer

    output, overwrite = how["output"], how["overwrite"]
    if output is not None:  # before FILE is read, which may take long
        check_output(output, overwrite=overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    steps = ("merge_within", "drop_channels", "recalibrate", "data", "time")
    needs_network = named or any(how[step] not in (None, False) for step in steps)
    if rule is not None and not (needs_network or rule.is_of_cost) and is_daukit_file(source):
        with naming(str(source)):
            return prune_layer_by_layer(source, rule, output=output, overwrite=overwrite)
    checkpoint = read()
    with naming(str(source)), _progress(how["data"] or how["recalibrate"]) as update:
        return prune_checkpoint(checkpoint, rule, on_progress=update, **how)


def _iterated(
    source: Path, read: Callable[[], Checkpoint], rule: Rule, training: Mapping[str, Any], **how: Any
) -> Iteration:
    """Prune in rounds, with training in between."""
    from daukit.workflows.iterate import prune_in_rounds
    from daukit.workflows.rounds import check_crops, crops_of, training_options

    try:
        crops, others = crops_of(training)
        chosen = training_options(others)
        checkpoint = read()
        check_crops(checkpoint, chosen, crops)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--train-arg") from None
    with naming(str(source)), progress_bar(1) as update:
        return prune_in_rounds(checkpoint, rule, options=chosen, crops=crops, on_progress=update, **how)


def _swept(checkpoint: Checkpoint, thresholds: list[float], *, sensitivity: bool, **how: Any) -> Sweep | Sensitivity:
    from daukit.workflows.sensitivity import measure_sensitivity
    from daukit.workflows.sweep import sweep_thresholds

    with _progress(how["data"]) as update:
        if sensitivity:
            return measure_sensitivity(checkpoint, thresholds, on_progress=update, **how)
        return sweep_thresholds(checkpoint, thresholds, on_progress=update, **how)


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


def _print_rounds(result: Iteration) -> None:
    print_json("prune", result)
    prune_tables.print_rounds(result)
    wrote(result.output)
    if result.output is None:
        print_answer(result.units_before)
        note("dry run: nothing was pruned, trained or written")


def _print_sweep(result: Sweep | Sensitivity) -> None:
    print_json("prune", result)
    prune_tables.print_sweep(result, answer=not (result.csv or result.figure))
    wrote(result.csv, result.figure)
