"""A model's structure in words: its differences from what its factory builds are written, and applied again on load."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container
from typing import Any

import torch
from torch import nn

from daukit.models.descriptions import KEYS, LAYER_KEYS, LEFT_OUT, TYPES, Description, module_faults
from daukit.nn import DAUConv2d, DAULinear

__all__ = [
    "LAYER_KEYS", "Description", "apply_differences", "build", "dau_layers", "describe", "differences",
    "replace_module",
]  # fmt: skip


def describe(module: nn.Module) -> Description | None:
    """A JSON object from which ``build`` makes a module of the same shape; None for a type that has no description."""
    if type(module) is nn.Sequential:
        children = [describe(child) for child in module]
        return None if None in children else {"type": "Sequential", "modules": children}
    name = type(module).__name__
    if TYPES.get(name) is not type(module):
        return None
    described = {"type": name, **{key: _attribute(module, key) for key in KEYS[name]}}
    plain: Description = json.loads(json.dumps(described))  # tuples become lists, as they will in the file
    return {key: value for key, value in plain.items() if key not in LEFT_OUT or value != LEFT_OUT[key]}


def build(description: Description) -> nn.Module:
    """A new module as described. Its tensors are placeholders until a state dict is loaded.

    Raises:
        ValueError: the description breaks a rule of its type.
        TypeError: it leaves out what the type has no default for.
    """
    wrong = module_faults(description)
    if wrong:
        raise ValueError(f"a {description.get('type')} cannot be built: {', '.join(wrong)} missing or wrong")
    return _built(description)


def _built(description: Description) -> nn.Module:
    options = dict(description)
    name = options.pop("type")
    if name == "Sequential":
        return nn.Sequential(*(_built(child) for child in options["modules"]))
    if name == "DAUConv2d":
        # Raggedness comes with the tensors; a learned sigma too.
        options.pop("ragged", None)
        options["init"] = options.pop("initialization", "grid")
        options["sigma"] = 0.5 if options.get("sigma") is None else options["sigma"]
    return TYPES[name](**{key: _option(value) for key, value in options.items()})


def differences(model: nn.Module, original: nn.Module) -> dict[str, Description]:
    """Describe how ``model`` differs from ``original``: {module name: its type and changed attributes}.

    Raises:
        ValueError: a module was replaced by one that ``describe`` has no words for, or was added.
    """
    result: dict[str, Description] = {}
    before, after = dict(original.named_modules()), dict(model.named_modules())
    for name, module in after.items():
        if _is_within(name, result) and not isinstance(after[name.rpartition(".")[0]], DAULinear):
            before |= _fresh(name, module)
            continue
        if name not in before:
            raise ValueError(
                f"module {name!r} is not in the network that the factory builds; only replacing is recorded"
            )
        now, old = describe(module), describe(before[name])
        if name == "" or (type(module) is nn.Sequential and type(before[name]) is nn.Sequential):
            continue  # its children speak for themselves
        # By name: a class that is made within a factory, or in a file that was changed, is another object every time.
        if type(module).__qualname__ != type(before[name]).__qualname__ and now is None:
            raise ValueError(f"module {name!r} became a {type(module).__name__}, which a file cannot describe")
        if now is None and module.extra_repr() != before[name].extra_repr():
            raise ValueError(
                f"module {name!r} differs from the factory's ({module!r}, not {before[name]!r}) in a way that a file "
                "cannot describe; make it an option of the factory"
            )
        if now is None or now == old:
            continue
        if old is not None and old["type"] == now["type"]:
            now, old = {**LEFT_OUT, **now}, {**LEFT_OUT, **old}
            result[name] = {"type": now["type"], **{key: value for key, value in now.items() if old.get(key) != value}}
        else:
            result[name] = now
        before |= _fresh(name, module)
    missing = [name for name in before if name not in after and not _is_within(name, result)]
    if missing:
        raise ValueError(f"modules {missing} of the factory's network are gone; replace them by nn.Identity instead")
    return result


def _fresh(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """What ``build`` puts into a module called ``name`` whose description has no words for it, by name."""
    if not isinstance(module, DAULinear):
        return {}
    with torch.device("meta"):
        return {f"{name}.dau": DAULinear(module.in_features, module.out_features).dau}


def _is_within(name: str, modules: Container[str]) -> bool:
    """Tell whether a module called ``name`` is a part of one of ``modules``."""
    return any(name[:place] in modules for place, letter in enumerate(name) if letter == ".")


def apply_differences(model: nn.Module, modules: dict[str, Description]) -> None:
    """Replace the modules of ``model`` in place so that ``differences`` to its former self would be ``modules``.

    Raises:
        ValueError: a name or a type that the model does not have.
    """
    places = _places(model) if modules else {}
    for name, changes in modules.items():
        try:
            former = model.get_submodule(name)
        except AttributeError:
            raise ValueError(f"the network has no module {name!r}") from None
        if former is model:
            raise ValueError("the network itself cannot be replaced by a module of it")
        old = describe(former)
        same = old is not None and old["type"] == changes.get("type")
        new = build({**(old or {}), **changes} if same else changes)
        # In the precision of what was there or, where that held nothing, of the network.
        tensors = (tensor for module in (former, model) for tensor in module.parameters())
        new.to(next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)).train(former.training)
        # A module that a network uses in several places stays one.
        for parent, child in places.setdefault(new, places.get(former, [])):
            setattr(parent, child, new)
        for module, inside in _places(new).items():
            places.setdefault(module, []).extend(inside)


def _places(model: nn.Module) -> dict[nn.Module, list[tuple[nn.Module, str]]]:
    """The places, as (parent, name), that hold each module within ``model``; modules that are gone are kept alive."""
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, name))
    return places


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place called ``name``, in the mode (train or eval) of what was there."""
    parent, _, child = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), child, module)


def dau_layers(model: nn.Module) -> dict[str, DAUConv2d]:
    """The model's DAU layers by name, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, DAUConv2d)}


def _attribute(module: nn.Module, key: str) -> Any:
    special: dict[str, Callable[[Any], Any]] = {
        "bias": lambda m: m.bias is not None,
        "ragged": lambda m: m.is_ragged,
        "learn_sigma": lambda m: m.form == "bilinear" and not isinstance(m.sigma, float),
        "sigma": lambda m: m.sigma if isinstance(m.sigma, float) else None,
        "value": lambda m: str(m.value) if math.isinf(m.value) else m.value,  # JSON has no infinity
    }
    return special[key](module) if key in special else getattr(module, key)


def _option(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return float(value) if value in ("inf", "-inf") else value
