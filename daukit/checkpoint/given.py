"""What an operation may be given, a checkpoint, the path of one or a model in memory, and what it then gives back."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from torch import nn

from daukit.checkpoint.file import read
from daukit.checkpoint.memory import Checkpoint
from daukit.checkpoint.model import build_model, from_model, read_any
from daukit.models import record_of, set_record
from daukit.models.callables import temporarily_known
from daukit.nn.wrappers import unwrapped

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

Given = Checkpoint | nn.Module | str | Path
"""A checkpoint, a model in memory, or the path of a daukit file."""


class Derivation(Protocol[P, R_co]):
    """An operation that makes a model of a model, and a checkpoint of a checkpoint or a path."""

    @overload
    def __call__(self, source: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> tuple[nn.Module, R_co]: ...

    @overload
    def __call__(
        self, source: Checkpoint | str | Path, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Checkpoint, R_co]: ...


def derives(operation: Callable[Concatenate[Checkpoint, P], tuple[Checkpoint, R]]) -> Derivation[P, R]:
    """Let an operation from a checkpoint to another take a model or a path, too; a model gives a new model.

    The new model has the old one's device, modes and record; the old one is not changed.
    """

    @functools.wraps(operation)
    def run(source: Given, /, *args: Any, **options: Any) -> tuple[Any, R]:
        if not isinstance(source, nn.Module):
            return operation(_checkpoint(source, operation, options), *args, **options)
        model = unwrapped(source, operation.__name__)
        with temporarily_known(lambda: copy.deepcopy(model)) as spec:
            derived, told = operation(_of_model(model, spec), *args, **_naming(spec, operation, options))
            return _as_model(derived, model, spec), told

    return run


def takes_any(operation: Callable[Concatenate[Checkpoint, P], R]) -> Callable[Concatenate[Given, P], R]:
    """Let an operation that reads a checkpoint take a model or a path, too."""

    @functools.wraps(operation)
    def run(source: Given, /, *args: Any, **options: Any) -> R:
        if not isinstance(source, nn.Module):
            return operation(_checkpoint(source, operation, options), *args, **options)
        model = unwrapped(source, operation.__name__)
        with temporarily_known(lambda: copy.deepcopy(model)) as spec:
            return operation(_of_model(model, spec), *args, **_naming(spec, operation, options))

    return run


def _checkpoint(source: object, operation: Callable[..., Any], options: dict[str, Any]) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"{operation.__name__} takes a model, a daukit.Checkpoint or the path of a daukit file, got "
            f"{type(source).__name__}"
        )
    named = options.get("model")
    return read(source) if named is None else read_any(source, model=named)


def _of_model(model: nn.Module, spec: str) -> Checkpoint:
    """The model as it is: its factory copies it, so that nothing differs from what the factory builds."""
    return from_model(model, architecture={"factory": spec, "config": {}})


def _naming(spec: str, operation: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the model's factory where the operation builds the network."""
    return {**options, "model": spec} if "model" in inspect.signature(operation).parameters else options


def _as_model(derived: Checkpoint, model: nn.Module, spec: str) -> nn.Module:
    """The model of ``derived``, with the device, modes, frozen parameters and record of the one it comes from."""
    result = build_model(derived, model=spec)
    record = record_of(model)
    set_record(result, None if record is None else replace(record, history=list(derived.header.history)))
    learned = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in result.named_parameters():
        parameter.requires_grad_(learned.get(name, True))
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in result.named_modules():
        module.training = modes.get(name, model.training)
    first = next(model.parameters(), None)
    return result if first is None else result.to(first.device)
