"""Operations take a checkpoint, the path of one or a model in memory, and give back what they took."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from torch import nn

from daukit.checkpoint.contents import Checkpoint
from daukit.checkpoint.file import read
from daukit.checkpoint.model import build_model, from_model, read_any
from daukit.models import record_of, set_record
from daukit.models.callables import Factory, temporarily_known
from daukit.models.running import copy_of
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
        with taken(source, operation.__name__, options.get("model")) as checkpoint:
            derived, told = operation(checkpoint, *args, **options)
            return (_as_model(derived, source) if isinstance(source, nn.Module) else derived), told

    return run


def takes_any(operation: Callable[Concatenate[Checkpoint, P], R]) -> Callable[Concatenate[Given, P], R]:
    """Let an operation that reads a checkpoint take a model or a path, too."""

    @functools.wraps(operation)
    def run(source: Given, /, *args: Any, **options: Any) -> R:
        with taken(source, operation.__name__, options.get("model")) as checkpoint:
            return operation(checkpoint, *args, **options)

    return run


@contextmanager
def taken(source: Given, operation: str, model: Factory | None = None) -> Iterator[Checkpoint]:
    """The checkpoint of what an operation was given; that of a model can be built inside the block alone.

    Args:
        source: a checkpoint, a path, or a model in memory, which may be compiled, averaged or parallel.
        operation: its name, for errors.
        model: as in ``daukit.load``, for paths.

    Raises:
        TypeError: ``source`` is neither.
        CheckpointError: as from ``read``.
    """
    if isinstance(source, Checkpoint):
        yield source
    elif isinstance(source, (str, Path)):
        yield read(source) if model is None else read_any(source, model=model)
    elif isinstance(source, nn.Module):
        whole = unwrapped(source, operation)
        record = record_of(whole)
        # Its factory copies it as it is, so that nothing differs from what the factory builds.
        with temporarily_known(lambda **_: copy_of(whole)) as spec:
            config = {} if record is None else record.architecture.get("config", {})
            yield from_model(whole, architecture={"factory": spec, "config": config})
    else:
        raise TypeError(
            f"{operation} takes a model, a daukit.Checkpoint or the path of a daukit file, got {type(source).__name__}"
        )


def _as_model(derived: Checkpoint, source: nn.Module) -> nn.Module:
    """The model of ``derived``, with the device, modes, frozen parameters and record of the one it comes from."""
    model, result = unwrapped(source, "a checkpoint"), build_model(derived)
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
