"""The options of ``daukit train`` that no other command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import options

Data = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Folder of images to train and measure on: IDX files, CIFAR, pictures by class, pairs of pictures.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Checkpoint to write. The names of all other files are derived from it.",
        parser=options.file_to_write,
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Train by this recipe, a name listed by `daukit recipes` or a .toml file. Options that are given win.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, or of the defaults, as training.epochs=5; repeatable.",
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with one class name per line. If omitted, takes the names in --data, if there are any.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network to train: a name of daukit models, package.module:factory or file.py:factory. If omitted, "
        "trains the recipe's, or shallow_dau. With --initial-checkpoint, names the network of a plain state dict.",
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        metavar="96,96,192",
        help="Output channels of each layer of a new network. If omitted, those of the recipe, or else of the network.",
    ),
]
Units = Annotated[
    str | None,
    typer.Option(
        metavar="N,...",
        help="Units per (output, input) pair of channels of a new network, or a number for each of its layers. If "
        "omitted, the recipe's, or else the network's.",
    ),
]
Sigma = Annotated[
    float | None,
    typer.Option(
        metavar="SIGMA",
        help="Standard deviation of the units of a new network, in pixels. If omitted, the recipe's, or the network's.",
    ),
]
LearnSigma = Annotated[
    Literal["none", "layer", "unit"] | None,
    typer.Option(
        help="In a new network, learn no sigma, one per layer, or one per unit. If omitted, as the recipe says, or the "
        "network."
    ),
]
InitialCheckpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Fine-tune the network of this file, with a fresh optimiser; or start a recipe's network with its layers. "
        "If omitted, trains a new network.",
    ),
]
Epochs = Annotated[
    int, typer.Option(min=1, max=1_000_000, metavar="N", help="Number of passes over the training images.")
]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Number of images per step.")]
Optimizer = Annotated[
    Literal["sgd", "adam", "adamw"],
    typer.Option(help="Optimiser: SGD with momentum, Adam, or AdamW, whose weight decay is no part of the gradient."),
]
LearningRate = Annotated[float, typer.Option(min=0, metavar="RATE", help="Learning rate at the start.")]
MuFactor = Annotated[
    str | None,
    typer.Option(
        metavar="FACTOR",
        help="With SGD, train displacements by SGD too, at --lr times this factor; auto: by the size of each layer. "
        "If omitted, they learn by Adam.",
    ),
]
MuRate = Annotated[
    str,
    typer.Option(
        "--mu-lr",
        metavar="PIXELS",
        help="Train displacements by Adam at this rate, about the pixels that a unit moves in a step; auto: by the "
        "number of steps.",
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
MuPower = Annotated[
    float | None,
    typer.Option(
        "--mu-power",
        min=0,
        metavar="POWER",
        help="With --schedule poly, the power for displacements. If omitted, that of --power.",
    ),
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
SyncBatchNorm = Annotated[
    bool,
    typer.Option(
        "--sync-batch-norm",
        help="Under torchrun, give batch norms the statistics of the whole batch, not of each process's share.",
    ),
]

Mirror = Annotated[
    bool, typer.Option("--mirror", help="Mirror each training image left to right with probability 1/2.")
]
Shift = Annotated[
    int, typer.Option(min=0, metavar="N", help="Move each training image at random by up to N pixels per axis.")
]
PartOption = Annotated[
    Literal["area", "position"] | None,
    typer.Option(help="Train on random parts of pictures, of any area or at any position. If omitted, area."),
]
CropSize = Annotated[
    str | None,
    typer.Option(
        metavar="H,W",
        help="Learn from random parts of this height and width, if the network segments or deblurs. If omitted, "
        "769,769 and 256,256.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Multiply the size of each training picture by a random factor between these, if the network "
        "segments. If omitted, sizes stay.",
    ),
]
WholePixels = Annotated[
    bool,
    typer.Option(
        "--whole-pixels",
        help="Round displacements to whole pixels on the way, for good: the network is faster.",
    ),
]
SnapAt = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="With --whole-pixels, round displacements after this share of the steps; weights go on.",
    ),
]
Best = Annotated[
    bool,
    typer.Option("--best", help="Also keep the network of the best epoch, by test accuracy, as OUT.best.safetensors."),
]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Also keep the network of every Nth epoch, as OUT.epoch0001.safetensors and so on."
    ),
]
SaveStateEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="STEPS",
        help="Also save the state to resume from after so many steps, not only after epochs.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run from OUT.resume.safetensors.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything before the first step, but train and write nothing.")
]
