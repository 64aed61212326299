"""From an architecture to a network: daukit's own by name, a user's by ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.errors import NetworkError, naming
from daukit.models import MODELS, create_model
from daukit.models.arguments import check_options
from daukit.models.callables import known_factory
from daukit.models.importing import import_source, imports_from
from daukit.models.record import ModelRecord, set_record
from daukit.models.specs import FORMS, Architecture, is_factory, split_factory
from daukit.models.usercode import reported
from daukit.texts import did_you_mean


def build_architecture(architecture: Architecture) -> nn.Module:
    """Build the network of ``{"name", "config"}`` or ``{"factory", "config"}``; torch's random state is left alone.

    A network of daukit's comes without memory for its tensors, on the meta device: they will be loaded, or are only
    asked for their shapes, and what a file says of their sizes may be wrong. A user's factory may need real ones.

    Raises:
        ValueError: the name or its options are wrong.
        TypeError: the factory does not take these options.
        NetworkError: a user's factory cannot be imported, fails, or returns no network.
    """
    config = architecture.get("config", {})
    with torch.random.fork_rng(devices=[]):
        if "name" in architecture:
            with torch.device("meta"):
                return create_model(architecture["name"], **config)
        if "factory" not in architecture:
            raise ValueError(f"an architecture needs a name or a factory, got {architecture}")
        model = _build_own(architecture["factory"], config)
    set_record(model, ModelRecord({"factory": architecture["factory"], "config": config}))
    return model


def build_new(architecture: Architecture) -> nn.Module:
    """Build the network of an architecture with tensors as it starts.

    Raises:
        TypeError: the factory does not take these options, or an option is of the wrong type.
        CheckpointError: the name or a value of its options is wrong, or a user's factory fails.
    """
    if "name" not in architecture:
        with naming(architecture["factory"]):
            return build_architecture(architecture)
    name, config = architecture["name"], architecture.get("config", {})
    with naming(name):
        check_options(name, config)
        return create_model(name, **config)


def _build_own(spec: str, config: Mapping[str, Any]) -> nn.Module:
    with nullcontext() if known_factory(spec) else imports_from(split_factory(spec)[0]):
        factory = resolve_factory(spec)
        _check_options(spec, factory, config)
        with reported(spec, f"its construction failed with {dict(config)}" if config else "its construction failed"):
            model = factory(**config)
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{spec}: returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _check_options(spec: str, factory: Callable[..., Any], config: Mapping[str, Any]) -> None:
    """Tell options that the factory does not take, or needs, from errors of its code."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of C, as some builtins
        return
    try:
        signature.bind(**config)
    except TypeError as error:
        raise TypeError(f"{spec}: {error}") from None


def accepted_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that the network called ``model``, a name or a factory, has arguments for."""
    known = options_of(model)
    return {key: value for key, value in options.items() if key in known}


def shared_options(
    architecture: Architecture, other: str, config: Mapping[str, Any], *, model: str | None = None
) -> dict[str, Any]:
    """Options of the network called ``other``: ``config``, and what it has in common with that of an architecture.

    Args:
        architecture: of a network that is there.
        other: a name or a factory.
        config: options that are given.
        model: the factory of ``architecture``, where the caller named it.

    Raises:
        ValueError: ``other`` has no option of ``config``.
    """
    own = architecture.get("config", {})
    is_same = other in (model, architecture.get("name"), architecture.get("factory"))
    factory = find_factory(other)
    if factory is not None:
        parameters = inspect.signature(factory).parameters
        known = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
        for key in config if len(known) == len(parameters) else ():
            if key not in known:
                hint = did_you_mean(key, known)
                raise ValueError(f"{other} has no option {key!r}{hint} (options: {', '.join(known)})")
    return {**(own if is_same else accepted_options(other, own)), **config}


def options_of(model: str) -> list[str]:
    """Names of all options of the network called ``model``, a name or a factory; none of a name that is unknown."""
    factory = find_factory(model)
    return [] if factory is None else list(inspect.signature(factory).parameters)


def option_of(architecture: Architecture, option: str) -> Any:
    """The value of an option of one of daukit's networks: as given, or its default; None if it has no such option.

    It is None of a user's network, too: an option of the same name need not mean the same there.
    """
    name = architecture.get("name")
    known = inspect.signature(MODELS[name]).parameters if name in MODELS else {}
    return architecture.get("config", {}).get(option, known[option].default) if option in known else None


def find_factory(spec: str) -> Callable[..., Any] | None:
    """The callable behind a network's spec, imported where it is a user's; None for a name that daukit does not know.

    Raises:
        NetworkError: as in ``resolve_factory``.
    """
    return resolve_factory(spec) if is_factory(spec) else MODELS.get(spec)


def resolve_factory(spec: str) -> Callable[..., Any]:
    """Import ``"package.module:function"`` or ``"path/to/file.py:function"``, which runs the module's code.

    The folder of a file, and the current one for a module that is not installed, is looked into last for what the
    module imports. The same file gives the same module as long as it is unchanged.

    Raises:
        NetworkError: there is no such module, file or function, or the module's code fails.
    """
    known = known_factory(spec)
    if known is not None:
        return known
    source, name = split_factory(spec)
    with imports_from(source):
        return _import(spec, source, name)


def _import(spec: str, source: str, name: str) -> Callable[..., Any]:
    what = f"cannot import the factory {spec!r}"
    if source.endswith(".py") and not Path(source).is_file():
        raise NetworkError(f"{what}: there is no such file; {FORMS}")
    with reported(spec, "its import failed"):
        try:
            module = import_source(source)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{source}.".startswith(f"{error.name}."):
                raise  # one that the module itself imports
            raise NetworkError(f"{what}: {error}, neither installed nor in the current folder; {FORMS}") from None
    factory = getattr(module, name, None)
    if not callable(factory):
        hint = did_you_mean(name, [n for n in dir(module) if callable(getattr(module, n))]) or f"; {FORMS}"
        raise NetworkError(f"{what}: {source} has no function {name!r}{hint}")
    found: Callable[..., Any] = factory
    return found
