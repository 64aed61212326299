"""The options of ``daukit prune`` that are its own, and the rules of which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options

Threshold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYER=]SHARE",
        help="Remove units whose |w| is below this share of the largest |w| in their layer; --relative-to compares "
        "with other units, --score by something else. LAYER=SHARE sets the threshold of one layer. Repeatable.",
    ),
]
KeepUnits = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Keep N units of the whole network, those of largest |w|, and remove the others."
    ),
]
Remove = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="SHARE", help="Remove this share (0 to 1) of the network's units, smallest |w| first."
    ),
]
Macs = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Keep at most this share (0 to 1) of the network's multiply-adds; units go smallest |w| first.",
    ),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Keep at most this share (0 to 1) of the network's time, by the time that a unit of each layer takes on "
        "this machine.",
    ),
]
Thresholds = Annotated[
    str | None,
    typer.Option(
        metavar="0,0.01,...",
        help="Print how many units would stay at each of these thresholds (Table 2), and write no checkpoint.",
    ),
]
ScoreName = Annotated[
    Literal["magnitude", "random", "taylor"],
    typer.Option(
        help="Compare units by |w|, by a random number, or by |w dL/dw|, the loss's first-order change without them, "
        "summed over the images of --data."
    ),
]
Reference = Annotated[
    Literal["layer", "channel", "network", "filter"],
    typer.Option(
        help="Compare |w| with the largest |w| of the unit's layer, of its output channel, of its filter (one pair "
        "of output and input channel), or of the whole network."
    ),
]
Random = Annotated[
    bool,
    typer.Option("--random", help="As a control, remove randomly chosen units, as many per layer as would go by |w|."),
]
MergeWithin = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="First merge units of the same filter that lie within this distance and whose weights have the same sign.",
    ),
]
DropChannels = Annotated[
    bool,
    typer.Option("--drop-channels", help="After pruning, drop channels that are always zero or that no layer reads."),
]
Recalibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="At last estimate the statistics of batch norms anew, on the images of this folder; they need no labels.",
    ),
]
Split = Annotated[
    Literal["train", "val", "test"],
    typer.Option(help="Part of the folder that --score taylor and --recalibrate read."),
]
Iterate = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=99,
        metavar="N",
        help="Reach the budget in N rounds of pruning and training; each keeps the same share of what was left.",
    ),
]
EpochsBetween = Annotated[
    int | None, typer.Option(min=1, metavar="E", help="With --iterate: train this many epochs after each pruning.")
]
TrainArg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="With --iterate: an option of `daukit train` for the training, as lr=0.02 or mirror=true; repeatable.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="With --iterate: continue a stopped run after its last finished round.")
]
Sensitivity = Annotated[
    bool,
    typer.Option(
        "--sensitivity", help="With --thresholds and --data: prune one layer at a time and compare the networks."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of images with labels, masks or sharp pictures. Prints the accuracy, mean IoU or PSNR on its test "
        "images before and after, or at each threshold.",
    ),
]
Time = Annotated[bool, typer.Option("--time", help="Measure how long a forward pass takes before and after pruning.")]

BUDGETS = ("--keep-units", "--remove", "--macs", "--time-budget")


def check_ways(ways: Mapping[str, object], *, others: bool) -> str | None:
    """The one way in which units are chosen; None where ``others`` than units change; else it is a usage error."""
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1 or not (given or others):
        message = f"give either --threshold or --thresholds, or one of {', '.join(BUDGETS[:-1])} and {BUDGETS[-1]}"
        raise typer.BadParameter(message, param_hint="--threshold")
    return given[0] if given else None


def check_score(score: str, *, removes: bool, random: bool, has_data: bool) -> None:
    """Make it a usage error to compare units by what is not there, or by random numbers twice."""
    if not removes:
        options.refuse_unused("no unit is removed by a score here; drop it", "--score", "--relative-to")
    if score == "taylor" and not has_data:
        message = "taylor needs images with labels; name their folder by --data"
        raise typer.BadParameter(message, param_hint="--score")
    if score == "random" and random:
        message = "--score random removes random units already; drop one of them"
        raise typer.BadParameter(message, param_hint="--random")


def check_sweep(sensitivity: bool, random: bool, *, has_data: bool) -> None:
    """Make it a usage error to give options that a sweep has no use for."""
    options.refuse_unused("a sweep writes no file; give one --threshold to write it", "--output")
    message = "a sweep only removes units; write a file with this, and sweep that file"
    options.refuse_unused(message, "--merge-within", "--drop-channels", "--time")
    if not has_data:
        message = "this needs images; name their folder by --data"
        options.refuse_unused(message, "--sensitivity", "--random", "--recalibrate")
    if sensitivity and random:
        raise typer.BadParameter(
            "--sensitivity removes units of small weight, not random ones; drop it", param_hint="--random"
        )


def check_pruning(way: str | None, random: bool, *, has_output: bool) -> None:
    """Make it a usage error to give options that one pruning has no use for."""
    options.refuse_unused("this belongs to a sweep; give --thresholds", "--sensitivity", "--csv", "--figure")
    if random and way is None:
        message = "say how many units: by --threshold, --keep-units or --remove"
        raise typer.BadParameter(message, param_hint="--random")
    if way == "--time-budget":
        options.refuse_unused("--time-budget measures the time anyhow; drop it", "--time")
    if not has_output:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")


def check_rounds(way: str | None, epochs: int | None, *, has_data: bool, has_output: bool) -> None:
    """Make it a usage error to give options that rounds have no use for, or to leave out what they need."""
    if way not in BUDGETS:
        message = f"rounds lead to a budget; give one of {', '.join(BUDGETS[:-1])} and {BUDGETS[-1]}"
        raise typer.BadParameter(message, param_hint="--iterate")
    for name, there, what in (
        ("--epochs-between", epochs is not None, "say how long to train after each pruning"),
        ("--data", has_data, "name the folder of images to train on"),
        ("--output", has_output, "name the file to write; those of the rounds are named after it"),
    ):
        if not there:
            raise typer.BadParameter(what, param_hint=name)
    options.refuse_unused("rounds train networks of daukit's, which say their task; drop it", "--task")
    message = "rounds only prune and train; do this to the file that they write"
    options.refuse_unused(message, "--merge-within", "--drop-channels", "--recalibrate", "--time")


def check_unused(way: str | None, score: str, *, random: bool, rounds: bool, time: bool, network: bool) -> None:
    """Make it a usage error to give options whose effect nothing asks for."""
    if not (time or way in ("--macs", "--time-budget")):
        options.refuse_unused("only --time, --macs and --time-budget need it; drop it", "--size")
    if not (network or time or way == "--time-budget"):
        options.refuse_unused("no network is run without --data, --recalibrate or --time; drop it", "--device")
    if not network:
        options.refuse_unused("no folder is read without --data or --recalibrate; drop it", "--layout", "--task")
    if not (random or score == "random"):
        options.refuse_unused("only --random and --score random need it; drop it", "--seed")
    if not rounds:
        options.refuse_unused("this belongs to --iterate; drop it", "--epochs-between", "--train-arg", "--resume")
