"""``daukit train``: train a network on a folder of images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from daukit.cli import devices, options
from daukit.cli import train_options as own
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.printing import note, print_json, speak
from daukit.cli.progress import progress_bar
from daukit.cli.stopping import explain_stop
from daukit.cli.train_recipe import (
    SNAP_AT,
    network_options,
    read_base,
    with_network,
    with_options,
    with_whole_pixels,
)
from daukit.cli.train_tables import announce, note_adapted, note_epoch, note_rates, print_result
from daukit.distributed import here

if TYPE_CHECKING:
    from daukit.training import EpochResult
    from daukit.workflows.train_runs import TrainingRun

EXAMPLES = (
    "daukit train --data images -o trained.safetensors --epochs 1",
    "daukit train --data images --channels 8,8,16 --units 2 --mirror -o small.safetensors --epochs 1",
    "daukit train --data images --initial-checkpoint model.safetensors -o tuned.safetensors --epochs 1",
)


def train(
    data: own.Data,
    output: own.Output,
    recipe: own.RecipeName = None,
    settings: own.Settings = None,
    layout: options.Layout = None,
    classes: own.Classes = None,
    model: own.Model = None,
    channels: own.Channels = None,
    units: own.Units = None,
    sigma: own.Sigma = None,
    learn_sigma: own.LearnSigma = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    initial_checkpoint: own.InitialCheckpoint = None,
    epochs: own.Epochs = 20,
    batch_size: own.BatchSize = 128,
    optimizer: own.Optimizer = "sgd",
    lr: own.LearningRate = 0.05,
    mu_lr_factor: own.MuFactor = None,
    mu_lr: own.MuRate = "auto",
    momentum: own.Momentum = 0.9,
    betas: own.Betas = "0.9,0.999",
    weight_decay: own.WeightDecay = 5e-4,
    schedule: own.Schedule = "cosine",
    milestones: own.Milestones = "75",
    gamma: own.Gamma = 0.1,
    power: own.Power = 0.9,
    mu_power: own.MuPower = None,
    warm_up: own.WarmUp = 0.0,
    clip_norm: own.ClipNorm = None,
    accumulate: own.Accumulate = 1,
    precision: own.Precision = "fp32",
    ema: own.Ema = None,
    sync_batch_norm: own.SyncBatchNorm = False,
    mirror: own.Mirror = False,
    shift: own.Shift = 0,
    part: own.PartOption = None,
    crop_size: own.CropSize = None,
    scale: own.Scale = None,
    whole_pixels: own.WholePixels = False,
    snap_at: own.SnapAt = SNAP_AT,
    best: own.Best = False,
    save_every: own.SaveEvery = None,
    save_state_every: own.SaveStateEvery = None,
    tensorboard: own.TensorBoard = None,
    resume: own.Resume = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: own.DryRun = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network and write its checkpoint, its log and a state to resume from."""
    speak(json=json, quiet=quiet)
    named = network_options(channels, units, sigma, learn_sigma)
    _check_start(initial_checkpoint, named, weights)
    config = named | options.parse_values(model_arg, "--model-arg")
    plain = {
        "epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "lr": lr, "mu_lr_factor": mu_lr_factor,
        "mu_lr": mu_lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "schedule": schedule,
        "milestones": milestones, "gamma": gamma, "power": power, "mu_power": mu_power, "warm_up": warm_up,
        "clip_norm": clip_norm, "accumulate": accumulate, "precision": precision, "ema": ema,
        "sync_batch_norm": sync_batch_norm, "mirror": mirror, "shift": shift, "part": part, "seed": seed,
    }  # fmt: skip
    base = read_base(recipe, settings, is_new=initial_checkpoint is None)
    chosen = with_options(base, plain, crop_size=crop_size, scale=scale, layout=layout)
    chosen = with_whole_pixels(chosen, whole_pixels, snap_at)
    device = devices.choose(device)
    keep_freed_memory()
    from daukit.training import RunFiles, check_save_every, check_shares
    from daukit.workflows.train import check_run, prepare_training
    from daukit.workflows.train_runs import Keeping
    from daukit.workflows.train_sets import check_changes, task_to_train

    keeping = Keeping(
        best=best, save_every=save_every, save_state_every=save_state_every, resume=resume, overwrite=overwrite
    )
    with options.usage_of("--output"):
        files = RunFiles(output)
    with options.usage_of("--batch-size"):
        check_shares(chosen.options, here())
    with options.usage_of("--save-every"):
        check_save_every(save_every, chosen.options.epochs)
    start = None
    if initial_checkpoint is None:
        chosen = with_network(chosen, model, config)
        if chosen.start is not None:
            with options.usage_of("--recipe"):
                check_run(files, chosen, keeping)
    else:
        check_run(files, chosen, keeping, initial_checkpoint, classes)  # before a large file is read
        start = options.read_source(initial_checkpoint, model, model_arg, weights)
        if start.header.preprocessing is not None and chosen.model is None:
            options.refuse_unused(f"{initial_checkpoint} states its classes; drop it", "--classes")
    named_by = "--model" if recipe is None or model is not None else "--recipe"
    with options.usage_of(named_by):
        task = task_to_train(chosen.model, chosen.config, start if chosen.model is None else None)
        check_changes(task, chosen.options, crop=chosen.crop, scale=chosen.scale, layout=chosen.layout)
    with options.usage_of(named_by, TypeError), options.usage_of("--whole-pixels") if whole_pixels else nullcontext():
        run = prepare_training(
            data, output, chosen, initial_checkpoint=start, initial_model=model if start else None, classes=classes,
            keeping=keeping, device=device,
        )  # fmt: skip
    if run.resume_from is None and not run.has_displacements:  # a run that goes on is told what it was told
        options.refuse_unused(f"{run.called} has no displacements; drop it", "--mu-lr", "--mu-lr-factor", "--mu-power")
    if run.resume_from == files.older_state:
        note(f"{run.resume_from}: going on from this state of daukit 0.1; from now on it is {files.state.name}")
    if dry_run:
        announce(run)
    else:
        _train(run, tensorboard)


def _train(run: TrainingRun, tensorboard: Path | None) -> None:
    """Train, and say what it came to."""
    from daukit.workflows.train import run_training

    note_adapted(run)
    note_rates(run)
    results: list[EpochResult] = []

    with explain_stop(run) as stop, progress_bar(1) as update:
        before = stop.epochs

        def tell(done: list[EpochResult]) -> None:
            results[:] = done
            if len(done) > before:
                note_epoch(run, done[-1])

        result = run_training(
            run, on_progress=update, on_epoch=tell, on_save=stop.saved, should_stop=lambda: stop.asked,
            tensorboard=tensorboard, ranks=here(),
        )  # fmt: skip
    if here().is_writer:
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
