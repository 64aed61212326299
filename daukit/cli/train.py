"""``daukit train``: train a classifier on a folder of IDX images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.memory import keep_freed_memory
from daukit.cli.progress import progress_bar
from daukit.cli.report import print_json, print_line, speak, wrote

if TYPE_CHECKING:
    from torch import nn

    from daukit.data import ImageDataset
    from daukit.training import TrainingOptions


def train(
    data: Annotated[Path, typer.Option(help="Folder of IDX images: train-* to learn from, t10k-* to measure on.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Checkpoint to write.")],
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
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Fine-tune this checkpoint, with a fresh optimiser.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 100,
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from resume.safetensors beside OUT.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a classifier; write its checkpoint, its log (OUT.jsonl) and resume.safetensors (section 4.1)."""
    speak(json=json, quiet=quiet)
    named = {"channels": _integers(channels, "--channels"), "units": units, "sigma": sigma, "learn_sigma": learn_sigma}
    named = {key: value for key, value in named.items() if value is not None}
    if start is not None and named:
        raise typer.BadParameter(f"the network of --from is as it is; drop {', '.join(named)}", param_hint="--from")
    config = named | options.parse_values(model_arg, "--model-arg")
    steps = tuple(_integers(milestones, "--milestones") or ())
    options.check_device(device)
    keep_freed_memory()
    import torch

    from daukit.checkpoint import from_model, save
    from daukit.data import load_folder
    from daukit.files import check_output
    from daukit.training import TrainingOptions
    from daukit.training import train as train_model

    resume_path, log_path = output.with_name("resume.safetensors"), output.with_suffix(".jsonl")
    if len({output, resume_path, log_path}) < 3:
        raise typer.BadParameter(f"{output.name} is the name of another file of this run", param_hint="--output")
    for path in (output, *([] if resume else [resume_path, log_path])):
        check_output(path, overwrite=overwrite)
    chosen = TrainingOptions(
        epochs=epochs, batch_size=batch_size, lr=lr, momentum=momentum, weight_decay=weight_decay,
        mu_lr_factor=mu_lr_factor, schedule=schedule, milestones=steps, gamma=gamma, mirror=mirror, shift=shift,
        seed=seed,
    )  # fmt: skip
    train_set, test_set = load_folder(data, "train", classes), load_folder(data, "test", classes)
    torch.manual_seed(seed)
    if start is None:
        network, digest = _new(model or "shallow_dau", config, train_set), None
    else:
        network, digest = _loaded(start, model, model_arg, train_set)
    from_model(network)  # what cannot be saved should say so before it is trained
    with _progress(chosen, len(train_set.images)) as on_step:
        results = train_model(
            network, train_set, test_set, chosen, resume_path=resume_path, log_path=log_path, resume=resume,
            source=digest, device=device, on_step=on_step,
        )  # fmt: skip
    size, last = save(network, output, overwrite=overwrite), results[-1]
    result = {"output": str(output), "bytes": size, "log": str(log_path), "epochs": len(results)}
    print_json("train", {**result, "accuracy": last.test_accuracy, "loss": last.test_loss})
    print_line(f"test accuracy {last.test_accuracy:.2%} after {len(results)} epochs; log in {log_path}")
    print_line(f"file: {size:,} bytes")
    wrote(output)


def _new(model: str, config: dict[str, Any], data: ImageDataset) -> nn.Module:
    """A new network, daukit's own sized to the data, with the preprocessing that the data needs."""
    from daukit.models import ModelRecord, create_model, set_record
    from daukit.models.factory import accepted_options, build_architecture

    is_own = ":" not in model
    if is_own:
        channels, height, width = data.images.shape[1:]
        fitted = {"in_channels": channels, "num_classes": data.num_classes, "input_size": [height, width]}
        config = {**accepted_options(model, fitted), **config}
    architecture = {"name" if is_own else "factory": model, "config": config}
    try:
        network = create_model(model, **config) if is_own else build_architecture(architecture)
    except TypeError as error:
        raise typer.BadParameter(f"{model}: {error}", param_hint="--model") from None
    set_record(network, ModelRecord(architecture, data.preprocessing()))
    return network


def _loaded(
    start: Path, model: str | None, model_arg: list[str] | None, data: ImageDataset
) -> tuple[nn.Module, str | None]:
    """The network of a file, and the file's digest; a file without preprocessing gets what the data needs."""
    from daukit.checkpoint import build_model
    from daukit.models import record_of

    checkpoint = options.read_source(start, model, model_arg)
    network = build_model(checkpoint, model=model)
    record = record_of(network)
    assert record is not None
    record.preprocessing = record.preprocessing or data.preprocessing()
    return network, checkpoint.digest


@contextmanager
def _progress(chosen: TrainingOptions, images: int) -> Iterator[Callable[[int, int, int, float], None]]:
    steps = -(-images // chosen.batch_size)
    with progress_bar(chosen.epochs * steps) as update:
        yield lambda epoch, step, _, loss: update(
            epoch * steps + step + 1, f"epoch {epoch + 1}/{chosen.epochs}, loss {loss:.3f}"
        )


def _integers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of integers like 96,96,192", param_hint=option) from None
