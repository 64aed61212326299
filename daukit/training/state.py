"""The state of a training in a file: everything that the next step depends on, as safetensors and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from daukit.checkpoint import CheckpointFile
from daukit.checkpoint.stored import tied_names
from daukit.datasets import Dataset
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.models import ModelRecord
from daukit.tasks import Headline
from daukit.texts import counted, parse_json
from daukit.training.averaging import MovingAverage
from daukit.training.log import EpochResult
from daukit.training.moves import MoveTracker
from daukit.training.optimizers import possible_state, restore_tensors, state_tensors
from daukit.training.options import TrainingOptions

_KEY = "daukit_resume"
_SCHEMA = 2
"""Of states inside an epoch. Those between epochs have schema 1, as they had before, and no key ``epoch``."""
_MODEL, _AVERAGE, _RANDOM, _EPOCH_RANDOM = "model.", "average.", "random", "epoch_random"
_GPU_RANDOM, _GPU_BYTES = "gpu_random", 16
"""The random state of the GPU that a network learns on; states of trainings on a CPU have none, and need none."""
_PARTS = {"steps", "loss", "seconds"}


@dataclass(frozen=True)
class PartialEpoch:
    """How far an epoch is that is not over.

    Attributes:
        steps: steps that are done, at least one.
        loss: sum of the losses of the images so far.
        seconds: time that they took.
        random: state of the epoch's source of chance; a state that is read without its tensors has none.
    """

    steps: int
    loss: float
    seconds: float
    random: Tensor | None = None

    @classmethod
    def from_json(cls, data: object) -> PartialEpoch | None:
        """Read what a state says of its epoch; None if ``data`` is nothing like it."""
        if not isinstance(data, dict) or set(data) != _PARTS or type(data["steps"]) is not int or data["steps"] < 1:
            return None
        if any(type(value) not in (int, float) or not 0 <= value < math.inf for value in data.values()):
            return None
        return cls(**data)


@dataclass(frozen=True)
class RunState:
    """The state of a run without its tensors.

    Attributes:
        run: the identity of the run, from ``identity``.
        results: the results of the epochs that are done.
        partial: the epoch that is not over; None between two epochs.
        updates: steps that the moving average is made of; None without one.
    """

    run: dict[str, dict[str, Any]]
    results: list[EpochResult]
    partial: PartialEpoch | None = None
    updates: int | None = None


def identity(
    options: TrainingOptions, record: ModelRecord, data: Dataset, source: str | None, *, is_prolongable: bool
) -> dict[str, Any]:
    """Describe a run by everything that its result depends on: a run that resumes another has the same identity."""
    settings = {
        **options.settings(),
        "epochs": None if is_prolongable else options.epochs,
        "data": data.digest(),
        "source": source,
    }
    return {"options": settings, "architecture": record.architecture}


def state_bytes(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    results: list[EpochResult],
    run: dict[str, Any],
    partial: PartialEpoch | None = None,
    average: MovingAverage | None = None,
    moves: MoveTracker | None = None,
) -> bytes:
    """Serialise a state: tensors, momenta, averages, starts, random states, settings, log, the part of an epoch."""
    own = model.state_dict()
    tied = tied_names(own)  # safetensors takes no two tensors that share memory
    tensors = {
        _MODEL + name: tensor.detach().cpu().clone() if name in tied else tensor.detach().cpu().contiguous()
        for name, tensor in own.items()
    }
    tensors |= state_tensors(model, optimizer)
    tensors[_RANDOM] = torch.get_rng_state()
    if moves is not None:
        tensors |= moves.tensors(inside_epoch=partial is not None)
    gpu = _gpu_of(model)
    if gpu is not None:
        tensors[_GPU_RANDOM] = torch.cuda.get_rng_state(gpu)
    data = {"schema": 1, "run": run, "results": [result.to_json() for result in results]}
    if average is not None:
        tensors |= {_AVERAGE + name: tensor.cpu().contiguous() for name, tensor in average.tensors.items()}
        data["updates"] = average.updates
    if partial is not None:
        assert partial.random is not None
        tensors[_EPOCH_RANDOM] = partial.random
        data |= {"schema": _SCHEMA, "epoch": {name: getattr(partial, name) for name in _PARTS}}
    return safetensors.torch.save(tensors, {_KEY: json.dumps(data, sort_keys=True, allow_nan=False)})


def read_state(path: Path) -> RunState:
    """Read a state without its tensors.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is not the state of a training.
    """
    with CheckpointFile(path) as file:
        return _read(file)


def restore_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    path: Path,
    run: dict[str, Any],
    headline: Headline,
    average: MovingAverage | None = None,
    moves: MoveTracker | None = None,
) -> RunState:
    """Put the state of ``path`` into all that changes in a training and torch's random state; return the rest of it.

    Raises:
        CheckpointError: as ``read_state``; or the state is another run's, or does not fit the network. Nothing is
            changed then.
    """
    with CheckpointFile(path) as file:
        state = _read(file)
        difference = _difference(state.run, json.loads(json.dumps(run)))
        if difference is not None:
            again = in_words_of_caller("resume with the same arguments", "give the same options with --resume")
            raise CheckpointError(f"{path}: belongs to another run ({difference}); {again}")
        tensors = {name: file.tensor(name) for name in file.keys()}
    if any(r.headline != headline.name or r.test_score > headline.maximum for r in state.results):
        raise _no_log(path)
    needed = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    randoms = [_RANDOM] if state.partial is None else [_RANDOM, _EPOCH_RANDOM]
    needed |= {name: torch.get_rng_state() for name in randoms}
    if average is not None:
        needed |= {_AVERAGE + name: tensor for name, tensor in average.tensors.items()}
        if state.updates is None:
            raise CheckpointError(f"{path}: does not say how many steps its averages are of; the file is damaged")
    possible = possible_state(model, optimizer) | {"": {_GPU_RANDOM: torch.empty(_GPU_BYTES, dtype=torch.uint8)}}
    if moves is not None:
        possible["start"] = moves.tensors(inside_epoch=state.partial is not None)
    _check_tensors(tensors, needed, possible, path)
    for name in randoms:
        _check_random(tensors[name], path)
    torch.set_rng_state(tensors[_RANDOM])
    gpu = _gpu_of(model)
    if gpu is not None and _GPU_RANDOM in tensors:
        torch.cuda.set_rng_state(tensors[_GPU_RANDOM], gpu)
    model.load_state_dict({n.removeprefix(_MODEL): tensor for n, tensor in tensors.items() if n.startswith(_MODEL)})
    restore_tensors(model, optimizer, tensors)
    if average is not None and state.updates is not None:
        average.restore({name: tensors[_AVERAGE + name] for name in average.tensors}, state.updates)
    if moves is not None:
        moves.restore(tensors)
    if state.partial is None:
        return state
    return replace(state, partial=replace(state.partial, random=tensors[_EPOCH_RANDOM]))


def _read(file: CheckpointFile) -> RunState:
    path, text = file.path, file.metadata.get(_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: not the state of a training run; daukit train writes it as OUT.resume.safetensors"
        )
    data = parse_json(text, path, what="its state of a training")
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or not 1 <= schema <= _SCHEMA:
        raise CheckpointError(
            f"{path}: a training's state of schema {schema!r}, and this daukit reads 1 and {_SCHEMA}; "
            "go on with the version that wrote it"
        )
    run, results = data.get("run"), data.get("results")
    if not isinstance(run, dict) or not all(isinstance(run.get(key), dict) for key in ("architecture", "options")):
        raise CheckpointError(f"{path}: its state of a training does not say which run it is; the file is damaged")
    if not isinstance(results, list):
        raise _no_log(path)
    read = [EpochResult.from_json(result, i + 1) for i, result in enumerate(results)]
    sound = [result for result in read if result is not None]
    partial = PartialEpoch.from_json(data.get("epoch"))
    if (partial is None) != (schema == 1):
        raise CheckpointError(f"{path}: its state of a training does not say how far its epoch is; the file is damaged")
    if (not sound and partial is None) or len(sound) < len(read):
        raise _no_log(path)
    updates = data.get("updates")
    if updates is not None and (type(updates) is not int or updates < 0):
        raise CheckpointError(f"{path}: its averages are of {updates!r} steps; the file is damaged")
    return RunState(run, sound, partial, updates)


def _no_log(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: its state of a training has a log that is none; the file is damaged")


def _gpu_of(model: nn.Module) -> torch.device | None:
    """The GPU of CUDA that a network is on."""
    device = next((parameter.device for parameter in model.parameters()), None)
    return device if device is not None and device.type == "cuda" else None


def _check_random(state: Tensor, path: Path) -> None:
    try:
        torch.Generator().set_state(state)
    except RuntimeError:
        raise CheckpointError(f"{path}: its random state is none of torch's; the file is damaged") from None


def _check_tensors(
    tensors: Mapping[str, Tensor],
    needed: Mapping[str, Tensor],
    possible: Mapping[str, Mapping[str, Tensor]],
    path: Path,
) -> None:
    """Raise ``CheckpointError`` unless the tensors are those that the network and its optimiser need."""
    known = dict(needed)
    problems = [f"there is no {name}" for name in needed if name not in tensors]
    for parts in possible.values():
        known.update(parts)
        if not tensors.keys().isdisjoint(parts):
            problems += [f"there is no {name}" for name in parts if name not in tensors]
    for name, tensor in tensors.items():
        right = known.get(name)
        if right is None:
            problems.append(f"{name} belongs to nothing")
        elif (tensor.dtype, tensor.shape) != (right.dtype, right.shape):
            problems.append(
                f"{name} is {_type(tensor)}, not {_type(right)}",
            )
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} holds NaN or infinity")
    if problems:
        more = f", and {len(problems) - 1} more like this" if len(problems) > 1 else ""
        raise CheckpointError(f"{path}: does not fit the network: {problems[0]}{more}; the file is damaged")


def _type(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _difference(saved: dict[str, dict[str, Any]], here: dict[str, dict[str, Any]]) -> str | None:
    """Name the settings in which a saved run and this one differ; None if there is none."""
    found = []
    for key in ("architecture", "options"):
        there_all, here_all = _flat(saved[key]), _flat(here[key])
        for name in [*here_all, *(n for n in there_all if n not in here_all)]:
            there, now = there_all.get(name), here_all.get(name)
            if there != now:
                found.append(_DIFFERENCES.get(name, f"{name}: {there} there, {now} here"))
    more = [f"and {counted(len(found) - _NAMED, 'more setting')}"] if len(found) > _NAMED else []
    return "; ".join([*found[:_NAMED], *more]) or None


_NAMED = 8
"""Settings that a message names."""
_DIFFERENCES = {
    "data": "data: it learnt from other images or labels",
    "source": "source: it started from another checkpoint, or from none",
}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Put the options of the network beside its name, each under its own name."""
    config = settings.get("config")
    if not isinstance(config, dict):
        return settings
    return {**{key: value for key, value in settings.items() if key != "config"}, **config}
