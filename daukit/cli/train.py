"""``daukit train``: train a network on a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli import train_options as own
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, speak
from daukit.cli.stopping import explain_stop
from daukit.cli.train_tables import announce, print_result

if TYPE_CHECKING:
    from daukit.training import EpochResult

SNAP_AT = 0.25
"""Share of the steps after which displacements are rounded by default, the best of examples/whole-pixels/study.py."""

EXAMPLES = (
    "daukit train --data images -o trained.safetensors --epochs 1",
    "daukit train --data images --channels 8,8,16 --units 2 --mirror -o small.safetensors --epochs 1",
    "daukit train --data images --initial-checkpoint model.safetensors -o tuned.safetensors --epochs 1",
)


def train(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder of images to train and measure on: IDX files, CIFAR, pictures by class, pairs of pictures.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Checkpoint to write. The names of all other files are derived from it.",
            parser=options.file_to_write,
        ),
    ],
    layout: options.Layout = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one class name per line. If omitted, takes the names in --data, if there are any.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network to train: a name of daukit models, package.module:factory or file.py:factory. If omitted, "
            "trains shallow_dau. With --initial-checkpoint, names the network of a plain state dict.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="96,96,192",
            help="Output channels of each layer of a new network. If omitted, those that the network has by default.",
        ),
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Units per (output, input) pair of channels of a new network. If omitted, the network's default.",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA",
            help="Standard deviation of the units of a new network, in pixels. If omitted, the network's default.",
        ),
    ] = None,
    learn_sigma: Annotated[
        Literal["none", "layer", "unit"] | None,
        typer.Option(
            help="In a new network, learn no sigma, one per layer, or one per unit. If omitted, the network's default."
        ),
    ] = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    initial_checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Fine-tune the network of this file, with a fresh optimiser. If omitted, trains a new network.",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Number of passes over the training images.")
    ] = 100,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Number of images per step.")] = 256,
    optimizer: own.Optimizer = "sgd",
    lr: own.LearningRate = 0.01,
    mu_lr_factor: own.MuFactor = 500.0,
    mu_lr: own.MuRate = 0.01,
    momentum: own.Momentum = 0.9,
    betas: own.Betas = "0.9,0.999",
    weight_decay: own.WeightDecay = 5e-4,
    schedule: own.Schedule = "step",
    milestones: own.Milestones = "75",
    gamma: own.Gamma = 0.1,
    power: own.Power = 0.9,
    warm_up: own.WarmUp = 0.0,
    clip_norm: own.ClipNorm = None,
    accumulate: own.Accumulate = 1,
    precision: own.Precision = "fp32",
    ema: own.Ema = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mirror each training image left to right with probability 1/2.")
    ] = False,
    shift: Annotated[
        int, typer.Option(min=0, metavar="N", help="Move each training image at random by up to N pixels per axis.")
    ] = 0,
    part: Annotated[
        Literal["area", "position"] | None,
        typer.Option(help="Train on random parts of pictures, of any area or at any position. If omitted, area."),
    ] = None,
    crop_size: Annotated[
        str | None,
        typer.Option(
            metavar="H,W",
            help="Learn from random parts of this height and width, if the network segments or deblurs. If omitted, "
            "769,769 and 256,256.",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Multiply the size of each training picture by a random factor between these, if the network "
            "segments. If omitted, sizes stay.",
        ),
    ] = None,
    whole_pixels: Annotated[
        bool,
        typer.Option(
            "--whole-pixels",
            help="Round displacements to whole pixels on the way, for good: the network is faster.",
        ),
    ] = False,
    snap_at: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="With --whole-pixels, round displacements after this share of the steps; weights go on.",
        ),
    ] = SNAP_AT,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="Also keep the network of the best epoch, by test accuracy, as OUT.best.safetensors."
        ),
    ] = False,
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Also keep the network of every Nth epoch, as OUT.epoch0001.safetensors and so on."
        ),
    ] = None,
    save_state_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Also save the state to resume from after so many steps, not only after epochs.",
        ),
    ] = None,
    tensorboard: own.TensorBoard = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped run from OUT.resume.safetensors.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything before the first step, but train and write nothing.")
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network and write its checkpoint, its log and a state to resume from."""
    speak(json=json, quiet=quiet)
    named = {"channels": _integers(channels, "--channels"), "units": units, "sigma": sigma, "learn_sigma": learn_sigma}
    named = {key: value for key, value in named.items() if value is not None}
    _check_start(initial_checkpoint, named, weights)
    config = named | options.parse_values(model_arg, "--model-arg")
    steps = tuple(_integers(milestones, "--milestones") or ())
    if min(steps, default=1) < 1:
        raise typer.BadParameter("epochs are counted from 1", param_hint="--milestones")
    own.refuse_idle(optimizer, schedule)
    if not whole_pixels:
        options.refuse_unused("without --whole-pixels nothing is rounded; drop it", "--snap-at")
    device = options.choose_device(device)
    keep_freed_memory()
    from daukit.training import RunFiles, TrainingOptions, check_files, check_save_every
    from daukit.workflows.train import prepare_training, run_training
    from daukit.workflows.train_sets import check_changes, task_to_train

    with _usage("--output"):
        files = RunFiles(output)
    with _usage("--save-every"):
        check_save_every(save_every, epochs)
    with own.usage_of_named():
        chosen = TrainingOptions(
            epochs=epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, momentum=momentum,
            betas=own.betas_of(betas), weight_decay=weight_decay, mu_lr_factor=mu_lr_factor, mu_lr=mu_lr,
            schedule=schedule, milestones=steps, gamma=gamma, power=power, warm_up=warm_up, clip_norm=clip_norm,
            accumulate=accumulate, precision=precision, ema=ema, mirror=mirror, shift=shift, part=part,
            seed=seed, snap_at=snap_at if whole_pixels else None,
        )  # fmt: skip
    start = None
    if initial_checkpoint is not None:
        sources = [path for path in (initial_checkpoint, classes) if path is not None]
        check_files(  # before a large file is read
            files, chosen, resume=resume, best=best, every=save_every, overwrite=overwrite, sources=sources
        )
        start = options.read_source(initial_checkpoint, model, model_arg, weights)
        if start.header.preprocessing is not None:
            options.refuse_unused(f"{initial_checkpoint} states its classes; drop it", "--classes")
    changes = {"crop": _pair(crop_size, "--crop-size", int), "scale": _pair(scale, "--scale", float)}
    with _usage("--model"):
        check_changes(task_to_train(model, config, start), chosen, layout=layout, **changes)
    with _usage("--model", TypeError), _usage("--whole-pixels") if whole_pixels else nullcontext():
        run = prepare_training(
            data, output, chosen, model=model, config=config if start is None else None, initial_checkpoint=start,
            layout=layout, classes=classes, **changes, resume=resume, best=best, save_every=save_every,
            save_state_every=save_state_every, overwrite=overwrite, device=device,
        )  # fmt: skip
    if run.resume_from == files.older_state:
        note(f"{run.resume_from}: going on from this state of daukit 0.1; from now on it is {files.state.name}")
    if dry_run:
        announce(run)
        return
    results: list[EpochResult] = []

    def keep(done: list[EpochResult]) -> None:
        results[:] = done

    with explain_stop(run) as stop, progress_bar(1) as update:
        result = run_training(
            run, on_progress=update, on_epoch=keep, on_save=stop.saved, should_stop=lambda: stop.asked,
            tensorboard=tensorboard,
        )  # fmt: skip
    print_json("train", result)
    print_result(run, result, results)


def _check_start(initial_checkpoint: Path | None, named: Mapping[str, object], weights: str | None) -> None:
    """Make it a usage error to shape a network that exists, or to choose among the weights of one that does not."""
    option = "--initial-checkpoint"
    if initial_checkpoint is not None and named:
        raise typer.BadParameter(
            f"it fixes the shape of the network; drop {', '.join('--' + name.replace('_', '-') for name in named)}",
            param_hint=option,
        )
    if initial_checkpoint is None and weights is not None:
        raise typer.BadParameter(f"a new network has no weights to choose; give {option}", param_hint="--weights")


@contextmanager
def _usage(option: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Make the library's refusal of an argument a usage error of ``option``."""
    try:
        yield
    except kind as error:
        raise typer.BadParameter(str(error).splitlines()[0], param_hint=option) from None


def _pair(text: str | None, option: str, kind: type[Any]) -> tuple[Any, Any] | None:
    """Two numbers with a comma between them."""
    if text is None:
        return None
    try:
        first, second = (kind(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not two numbers with a comma between", param_hint=option) from None
    return first, second


def _integers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of integers like 96,96,192", param_hint=option) from None
