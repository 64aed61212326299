"""The options of ``daukit train`` that say how the network learns, and the rules of which of them go together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options

Optimizer = Annotated[
    Literal["sgd", "adam", "adamw"],
    typer.Option(help="Optimiser: SGD with momentum, Adam, or AdamW, whose weight decay is no part of the gradient."),
]
LearningRate = Annotated[float, typer.Option(min=0, metavar="RATE", help="Learning rate at the start.")]
MuFactor = Annotated[
    float, typer.Option(min=0, metavar="FACTOR", help="With SGD, train displacements at --lr times this factor.")
]
MuRate = Annotated[
    float,
    typer.Option(
        "--mu-lr",
        min=0,
        metavar="PIXELS",
        help="With Adam, train displacements at this rate, about the pixels that a unit moves in a step.",
    ),
]
Momentum = Annotated[float, typer.Option(min=0, metavar="MOMENTUM", help="Momentum of SGD.")]
Betas = Annotated[
    str,
    typer.Option(metavar="B1,B2", help="What Adam's mean gradients and mean squares keep of themselves at a step."),
]
WeightDecay = Annotated[
    float,
    typer.Option(min=0, metavar="DECAY", help="Weight decay. It acts on weights, not on displacements or biases."),
]
Schedule = Annotated[
    Literal["step", "poly", "cosine", "constant"],
    typer.Option(
        help="Lower the learning rates by --gamma at the --milestones, along a polynomial of --power or a cosine to "
        "zero, or not at all."
    ),
]
Milestones = Annotated[
    str, typer.Option(metavar="75,...", help="Lower the learning rates of the step schedule after these epochs.")
]
Gamma = Annotated[
    float, typer.Option(min=0, metavar="FACTOR", help="Multiply the learning rates by this at every milestone.")
]
Power = Annotated[
    float,
    typer.Option(min=0, metavar="POWER", help="With --schedule poly, the power of the share of steps that are left."),
]
WarmUp = Annotated[
    float,
    typer.Option(
        "--warm-up",
        min=0,
        metavar="EPOCHS",
        help="Let a factor on all rates rise from 0 to 1 in so many epochs.",
    ),
]
ClipNorm = Annotated[
    float | None,
    typer.Option(metavar="NORM", help="Shorten the gradients of a step if their common norm is above this."),
]
Accumulate = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Compute the gradient of each step in N parts of its batch, to save memory."),
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(help="Train in float32, or under autocast in bfloat16; parameters stay float32."),
]
Ema = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Measure and write a moving average of the network. It keeps this share of itself, as 0.999, at a step.",
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Write curves for TensorBoard into this folder. It needs the package tensorboard."
    ),
]


def refuse_idle(optimizer: str, schedule: str) -> None:
    """Make it a usage error to give options of another optimiser or schedule."""
    if optimizer == "sgd":
        options.refuse_unused("this is Adam's, and --optimizer is sgd; drop it", "--betas", "--mu-lr")
    else:
        options.refuse_unused(f"--optimizer {optimizer} has none; drop it", "--momentum", "--mu-lr-factor")
    if schedule != "step":
        options.refuse_unused(f"--schedule {schedule} has no steps; drop it", "--milestones", "--gamma")
    if schedule != "poly":
        options.refuse_unused(f"--schedule {schedule} has no power; drop it", "--power")


def betas_of(text: str) -> tuple[float, ...]:
    """The numbers of ``--betas``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not two numbers like 0.9,0.999", param_hint="--betas") from None


@contextmanager
def usage_of_named() -> Iterator[None]:
    """Make an error whose first word is the name of an argument a usage error of its option."""
    try:
        yield
    except ValueError as error:
        name = str(error).split()[0].replace("_", "-")
        raise typer.BadParameter(str(error), param_hint=f"--{name}") from None
