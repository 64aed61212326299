"""Train classifiers: SGD with the paper's rules for DAUs, a log, and a state to resume from, bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.augmentation import augment
from daukit.checkpoint import CheckpointFile, history_entry
from daukit.data import ImageDataset
from daukit.errors import CheckpointError, DaukitError
from daukit.evaluation import check_fits, class_scores, evaluate
from daukit.files import write_atomic
from daukit.models import ModelRecord, record_of
from daukit.nn import parameter_groups, project_displacements
from daukit.preprocessing import Preprocessing

_RESUME_KEY = "daukit_resume"
_RESUME_SCHEMA = 1


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults follow section 4.1 of the paper.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: on convolution, linear and DAU weights only.
        mu_lr_factor: displacements learn at ``mu_lr_factor * lr``.
        schedule: ``"step"`` multiplies the rates by ``gamma`` at every milestone, ``"cosine"`` lowers them to zero.
        milestones: epochs after which ``"step"`` acts.
        gamma: what ``"step"`` multiplies by.
        mirror: mirror each training image left to right with probability 1/2 (section 4.2).
        shift: move each training image by up to this many pixels along both axes.
        seed: of the initial weights, of the order of images and of what is random about them.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mu_lr_factor: float = 500.0
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (75,)
    gamma: float = 0.1
    mirror: bool = False
    shift: int = 0
    seed: int = 0

    def rate(self, progress: float) -> float:
        """Factor on all learning rates after ``progress`` epochs."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress / self.epochs))
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class EpochResult:
    """One line of the log."""

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float


def train(
    model: nn.Module,
    train_set: ImageDataset,
    test_set: ImageDataset,
    options: TrainingOptions,
    *,
    resume_path: Path,
    log_path: Path,
    resume: bool = False,
    source: str | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int, int, float], None] | None = None,
) -> list[EpochResult]:
    """Train ``model``, which carries a record with preprocessing, in place; leave it in eval mode on the CPU.

    After every epoch the log gets a line and ``resume_path`` the whole state of training.

    Args:
        model: from ``create_model`` or ``load``, its record's preprocessing set.
        train_set: images to learn from.
        test_set: images to measure on after every epoch; nothing is chosen by them.
        options: how to train.
        resume_path: state of training, replaced after every epoch.
        log_path: JSON lines, one ``EpochResult`` an epoch.
        resume: go on from ``resume_path``.
        source: digest of the file that the model was loaded from, for its history.
        device: where to train.
        on_step: called with (epoch, step, steps an epoch, loss).

    Returns:
        One result per epoch, those before a resume included.

    Raises:
        CheckpointError: ``resume_path`` is damaged or belongs to another run.
        DataError: the network cannot take the images, or has no score for a label.
        DaukitError: the loss is no longer finite.
    """
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise ValueError("train() needs a model whose record has preprocessing: build it with create_model and set it")
    for images in (train_set, test_set):
        check_fits(model.to(device).eval(), images, record.preprocessing, device)
    rates = parameter_groups(model, options.lr, options.mu_lr_factor * options.lr, options.weight_decay)
    optimizer = torch.optim.SGD(rates, lr=options.lr, momentum=options.momentum)
    identity = _identity(options, record, train_set, source)
    results = _restore(model, optimizer, resume_path, identity) if resume else []
    for epoch in range(len(results), options.epochs):
        started = time.perf_counter()
        loss = _train_epoch(model, optimizer, train_set, record.preprocessing, options, epoch, device, on_step)
        tested = evaluate(model, test_set, record.preprocessing, device=device)
        lr = options.lr * options.rate(epoch)
        seconds = time.perf_counter() - started
        results.append(EpochResult(epoch + 1, lr, loss, tested.loss, tested.accuracy, round(seconds, 3)))
        write_atomic(resume_path, _state(model, optimizer, results, identity), overwrite=True)
        lines = "".join(json.dumps(asdict(result)) + "\n" for result in results)
        write_atomic(log_path, lines.encode(), overwrite=True)
    model.cpu().eval()
    arguments = {**asdict(options), "milestones": list(options.milestones)}
    if results:
        arguments["test_accuracy"] = results[-1].test_accuracy
    record.history.append(history_entry("train", arguments, source))
    return results


def _identity(options: TrainingOptions, record: ModelRecord, data: ImageDataset, source: str | None) -> dict[str, Any]:
    """What a run must share with the one that it resumes: everything that its result depends on."""
    settings = {
        **asdict(options),
        # The step schedule's rates do not depend on the number of epochs: such a run may be prolonged.
        "epochs": options.epochs if options.schedule == "cosine" else None,
        "data": hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest(),
        "source": source,
    }
    return {"options": settings, "architecture": record.architecture}


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: ImageDataset,
    preprocessing: Preprocessing,
    options: TrainingOptions,
    epoch: int,
    device: str | torch.device,
    on_step: Callable[[int, int, int, float], None] | None,
) -> float:
    """One pass over the data; the mean loss over its images."""
    model.train()
    # What is random depends on seed and epoch alone, so a resumed run sees the same.
    generator = torch.Generator().manual_seed(options.seed * 100_003 + epoch)
    batches = torch.randperm(len(data.images), generator=generator).split(options.batch_size)
    total = 0.0
    initial = [group["lr"] for group in optimizer.param_groups]
    for step, batch in enumerate(batches):
        factor = options.rate(epoch + step / len(batches))
        for group, lr in zip(optimizer.param_groups, initial, strict=True):
            group["lr"] = lr * factor
        pixels = augment(data.images[batch].to(device), mirror=options.mirror, shift=options.shift, generator=generator)
        images = preprocessing.normalize(pixels)
        loss = F.cross_entropy(class_scores(model, images), data.labels[batch].to(device))
        value = loss.item()
        if not math.isfinite(value):
            raise DaukitError(
                f"the loss became {value} at epoch {epoch + 1}, step {step + 1}; lower the learning rate (--lr, "
                f"now {options.lr}) or --mu-lr-factor (now {options.mu_lr_factor})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        project_displacements(model)
        total += value * len(batch)
        if on_step is not None:
            on_step(epoch, step, len(batches), value)
    for group, lr in zip(optimizer.param_groups, initial, strict=True):
        group["lr"] = lr
    return total / len(data.images)


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, results: list[EpochResult], identity: dict[str, Any]
) -> bytes:
    """The whole state of training as safetensors bytes: tensors, momenta, random state, log; no pickle."""
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.cpu().contiguous()
    tensors["random"] = torch.get_rng_state()
    data = {"schema": _RESUME_SCHEMA, "run": identity, "results": [asdict(result) for result in results]}
    return safetensors.torch.save(tensors, {_RESUME_KEY: json.dumps(data, sort_keys=True)})


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, path: Path, identity: dict[str, Any]
) -> list[EpochResult]:
    """Put ``_state`` back; the results so far."""
    with CheckpointFile(path) as file:
        metadata = file.metadata.get(_RESUME_KEY)
        if metadata is None:
            raise CheckpointError(
                f"{path}: not the state of a training run; daukit train writes it as resume.safetensors"
            )
        tensors = {name: file.tensor(name) for name in file.keys()}
    try:
        data = json.loads(metadata)
        expected = json.loads(json.dumps(identity))
        mismatch = _mismatch(data, expected)
        if mismatch is not None:
            raise CheckpointError(
                f"{path}: belongs to another run; resume with the same command plus --resume ({mismatch})"
            )
        _load_prefixed(model, tensors, path)
        for name, parameter in model.named_parameters():
            momentum = tensors.get(f"momentum.{name}")
            if momentum is not None:
                optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        torch.set_rng_state(tensors["random"])
        return [EpochResult(**result) for result in data["results"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a complete state of a training run ({error!r})") from None


def _load_prefixed(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its tensors do not fit the network: {error}") from None


def _mismatch(data: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """The first setting in which a saved run and this one differ, or None."""
    if data.get("schema") != _RESUME_SCHEMA:
        return f"schema {data.get('schema')}, not {_RESUME_SCHEMA}"
    for key in ("architecture", "options"):
        for name, value in expected[key].items():
            saved = data["run"][key].get(name)
            if saved != value:
                return f"{name}: {saved} there, {value} here"
    return None
