"""``daukit train``: train a classifier on a folder of IDX images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.report import speak

if TYPE_CHECKING:
    from torch import nn

    from daukit.data import ImageDataset


def train(
    data: Annotated[Path, typer.Option(help="Folder of IDX images: train-* to learn from, t10k-* to measure on.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Checkpoint to write.", parser=options.file_to_write)
    ],
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line. Default: classes.txt beside the images.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network: shallow_dau (default), shallow, or your own factory.")
    ] = None,
    channels: Annotated[str | None, typer.Option(metavar="96,96,192", help="Output channels of the layers.")] = None,
    units: Annotated[int | None, typer.Option(min=1, help="Units per (output, input) pair.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Standard deviation of the units, in pixels.")] = None,
    learn_sigma: Annotated[
        Literal["none", "layer", "unit"] | None, typer.Option(help="Learn no sigma, one per layer, or one per unit.")
    ] = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Fine-tune this checkpoint, with a fresh optimiser.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Passes over the training images.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 256,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate at the start.")] = 0.01,
    mu_lr_factor: Annotated[float, typer.Option(min=0, help="Displacements learn at this times --lr.")] = 500.0,
    momentum: Annotated[float, typer.Option(min=0, help="Momentum of SGD.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0, help="Decay, on weights only.")] = 5e-4,
    schedule: Annotated[Literal["step", "cosine"], typer.Option(help="How the learning rates fall.")] = "step",
    milestones: Annotated[
        str, typer.Option(metavar="75,...", help="Epochs after which step multiplies by --gamma.")
    ] = "75",
    gamma: Annotated[float, typer.Option(min=0, help="What step multiplies the learning rates by.")] = 0.1,
    mirror: Annotated[bool, typer.Option("--mirror", help="Mirror half of the training images, at random.")] = False,
    shift: Annotated[int, typer.Option(min=0, help="Move training images by up to so many pixels, at random.")] = 0,
    best: Annotated[bool, typer.Option("--best", help="Keep OUT.best.safetensors, the best epoch.")] = False,
    save_every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep OUT.epoch0001.safetensors of every Nth epoch.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.resume.safetensors.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a classifier; write its checkpoint, its log and its state to resume from."""
    speak(json=json, quiet=quiet)
    named = {"channels": _integers(channels, "--channels"), "units": units, "sigma": sigma, "learn_sigma": learn_sigma}
    named = {key: value for key, value in named.items() if value is not None}
    if start is not None and named:
        raise typer.BadParameter(f"the network of --from is as it is; drop {', '.join(named)}", param_hint="--from")
    if start is None and weights is not None:
        raise typer.BadParameter("a new network has no weights to choose; give --from", param_hint="--weights")
    config = named | options.parse_values(model_arg, "--model-arg")
    steps = tuple(_integers(milestones, "--milestones") or ())
    if min(steps, default=1) < 1:
        raise typer.BadParameter("epochs are counted from 1", param_hint="--milestones")
    if schedule != "step":
        options.refuse_unused(f"--schedule {schedule} has no steps; drop it", "--milestones", "--gamma")
    options.check_device(device)
    keep_freed_memory()
    import torch

    from daukit.cli.train_run import Run, check_outputs, run
    from daukit.data import load_folder
    from daukit.training import RunFiles, TrainingOptions

    files = RunFiles(output)
    chosen = TrainingOptions(
        epochs=epochs, batch_size=batch_size, lr=lr, momentum=momentum, weight_decay=weight_decay,
        mu_lr_factor=mu_lr_factor, schedule=schedule, milestones=steps, gamma=gamma, mirror=mirror, shift=shift,
        seed=seed,
    )  # fmt: skip
    resume_from = check_outputs(
        files, chosen, resume=resume, best=best, every=save_every, overwrite=overwrite,
        sources=[path for path in (start, classes) if path is not None],
    )  # fmt: skip
    train_set, test_set = load_folder(data, "train", classes), load_folder(data, "test", classes)
    torch.manual_seed(seed)
    if start is None:
        network, digest, called = *_new(model or "shallow_dau", config, train_set), model or "shallow_dau"
    else:
        network, digest, called = *_loaded(start, model, model_arg, weights, train_set), f"{start}'s network"
    run(
        Run(network, called, digest, data, train_set, test_set, chosen, files, best, save_every, device),
        resume_from, dry_run=dry_run, overwrite=overwrite,
    )  # fmt: skip


def _new(model: str, config: dict[str, Any], data: ImageDataset) -> tuple[nn.Module, None]:
    """A new network, daukit's own sized to the data, with the preprocessing that the data needs."""
    from daukit.models import ModelRecord, create_model, set_record
    from daukit.models.factory import accepted_options, build_architecture

    is_own = ":" not in model
    if is_own:
        channels, height, width = data.images.shape[1:]
        fitted = {"in_channels": channels, "num_classes": data.num_classes, "input_size": [height, width]}
        config = {**accepted_options(model, fitted), **config}
    architecture = {"name" if is_own else "factory": model, "config": config}
    with options.building(model, config, "--model"):
        network = create_model(model, **config) if is_own else build_architecture(architecture)
    set_record(network, ModelRecord(architecture, data.preprocessing()))
    return network, None


def _loaded(
    start: Path, model: str | None, model_arg: list[str] | None, weights: str | None, data: ImageDataset
) -> tuple[nn.Module, str | None]:
    """The network of a file, and the file's digest; a file without preprocessing gets what the data needs."""
    from daukit.checkpoint import build_model
    from daukit.models import record_of

    checkpoint = options.read_source(start, model, model_arg, weights)
    network = build_model(checkpoint, model=model)
    record = record_of(network)
    assert record is not None
    if record.preprocessing is not None:
        options.refuse_unused(f"{start} says what its classes are; drop it", "--classes")
    record.preprocessing = record.preprocessing or data.preprocessing()
    return network, checkpoint.digest


def _integers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of integers like 96,96,192", param_hint=option) from None
