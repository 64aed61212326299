"""From an architecture to a network: daukit's own by name, a user's by ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.models import MODELS, create_model

Architecture = dict[str, Any]


def build_architecture(architecture: Architecture) -> nn.Module:
    """Build the network of ``{"name", "config"}`` or ``{"factory", "config"}``; torch's random state is left alone.

    A network of daukit's comes without memory for its tensors, on the meta device: they will be loaded, or are only
    asked for their shapes, and what a file says of their sizes may be wrong. A user's factory may need real ones.

    Raises:
        ValueError: the name, the factory or its options are wrong.
    """
    config = architecture.get("config", {})
    with torch.random.fork_rng(devices=[]):
        if "name" in architecture:
            with torch.device("meta"):
                return create_model(architecture["name"], **config)
        if "factory" not in architecture:
            raise ValueError(f"an architecture needs a name or a factory, got {architecture}")
        model = resolve_factory(architecture["factory"])(**config)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{architecture['factory']} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def accepted_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that the network called ``model``, a name or a factory, has arguments for."""
    factory = resolve_factory(model) if ":" in model else MODELS.get(model)
    known = inspect.signature(factory).parameters if factory is not None else {}
    return {key: value for key, value in options.items() if key in known}


def option_of(architecture: Architecture, option: str) -> Any:
    """The value of an option of the network: as given, or the default of its factory; None if it has no such option."""
    name = architecture.get("name")
    known = inspect.signature(MODELS[name]).parameters if name in MODELS else {}
    default = known[option].default if option in known else None
    return architecture.get("config", {}).get(option, default)


def resolve_factory(spec: str) -> Callable[..., Any]:
    """Import ``"package.module:function"`` or ``"path/to/file.py:function"``.

    Raises:
        ValueError: there is no such module, file or function.
    """
    source, _, name = spec.rpartition(":")
    try:
        if source.endswith(".py"):
            found = importlib.util.spec_from_file_location(Path(source).stem, source)
            assert found is not None and found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        factory: Callable[..., Any] = getattr(module, name)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise ValueError(
            f"cannot import the factory {spec!r}: {error}; write package.module:function or file.py:function"
        ) from None
    return factory
