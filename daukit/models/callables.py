"""Factories as callables: each gets the name that a file would call it by, and stays known by it in this process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from daukit.models.specs import Architecture, architecture_of, split_factory

Factory = str | Callable[..., nn.Module]
"""A network's name or ``module:function``, or the function itself."""

_IN_MEMORY = "<in memory>:"  # no file and no person calls a module so
_known: dict[str, Callable[..., Any]] = {}
_numbers = itertools.count(1)


def spec_of(factory: Factory) -> str:
    """The spec of ``factory``: a string as it is, a function as ``"module:function"`` or ``"file.py:function"``.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(factory, str):
        return factory
    if not callable(factory) or isinstance(factory, nn.Module):
        built = " that is built already" if isinstance(factory, nn.Module) else ""
        raise TypeError(
            f"a network is named by a string, as a name of daukit.models or 'package.module:function', or by its "
            f"factory itself; got {type(factory).__name__}{built}"
        )
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", f"<{type(factory).__name__}>")
    if module == "__main__":  # another process would find it by its file
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or "<main>").name
    spec = f"{module}:{name}"
    _known[spec] = factory
    return spec


def known_factory(spec: str) -> Callable[..., Any] | None:
    """The callable that ``spec_of`` named so, or None."""
    return _known.get(spec)


def is_in_memory(spec: str) -> bool:
    """Tell a name of ``temporarily_known``, whose factory gives what the caller holds already."""
    return spec.startswith(_IN_MEMORY) and spec in _known


def check_nameable(spec: str) -> None:
    """Raise where no other process could find the factory by its name.

    Raises:
        ValueError: it is a lambda, a partial, or a function within another.
    """
    name = split_factory(spec)[1]
    if spec in _known and ("<" in spec or "." in name):
        last = name.rpartition(".")[2]
        raise ValueError(
            f"a file names its network's factory, and {last} could not be found by its name elsewhere; pass a function "
            'at the top of a module, and its options as "config"'
        )


def in_words(architecture: Mapping[str, Any] | Factory) -> Architecture:
    """An architecture with its factory by name, as a file has it.

    Raises:
        TypeError: it is neither a mapping nor a factory.
    """
    if isinstance(architecture, Mapping):
        words = dict(architecture)
        check_config(words.get("config", {}))
        return words if "factory" not in words else {**words, "factory": spec_of(words["factory"])}
    if isinstance(architecture, str):
        return architecture_of(architecture)
    return {"factory": spec_of(architecture), "config": {}}


def check_config(config: object) -> None:
    """Raise unless ``config`` can be the options of a network.

    Raises:
        TypeError: it is no mapping from names.
    """
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        what = "has other keys than texts" if isinstance(config, Mapping) else f"is a {type(config).__name__}"
        raise TypeError(f"config must map options of the network to values, as {{'units': 2}}; it {what}")


@contextmanager
def temporarily_known(factory: Callable[..., nn.Module]) -> Iterator[str]:
    """A name of its own for ``factory``, inside the block only."""
    spec = f"{_IN_MEMORY}{next(_numbers)}"
    _known[spec] = factory
    try:
        yield spec
    finally:
        del _known[spec]
