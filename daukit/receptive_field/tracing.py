"""Stride and padding arithmetic of whatever a network runs, seen at torch's dispatcher.

A module's class says little about what it computes, and a function has no module. All of them come down to about a
hundred operations of torch's dispatcher, whose arithmetic is known; behind an unknown one, the axes are lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from daukit.nn import DAUConv2d
from daukit.nn.pixels import whole_limit
from daukit.receptive_field.axes import Axis, Place
from daukit.receptive_field.calls import Axes, Call, Limits
from daukit.receptive_field.windowless import POINTWISE, WINDOWLESS, pointwise
from daukit.receptive_field.windows import WINDOWS

_RULES: Mapping[str, Callable[[Call], Axes]] = {**WINDOWLESS, **WINDOWS}


class Tracer(TorchDispatchMode):
    """Follows everything that depends on ``input`` (N, C, H, W) while it is active.

    Maps are known by where their numbers lie, so that views and changes in place are followed too.

    Attributes:
        memory: bytes of the maps seen.
    """

    def __init__(self, input: Tensor, limits: Limits | None = None):
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._limits = limits or {}
        self._maps: dict[Any, Axes] = {}
        self._torn: set[int] = set()
        self._alive: list[Tensor] = []  # no address is given to a second tensor
        self.memory = 0
        height, width = input.shape[2:]
        self._know(input, (Axis(height, Place(2)), Axis(width, Place(3))))

    def axes(self, tensor: Tensor) -> Axes | None:
        """The axes of a tensor that depends on the input."""
        known = self._maps.get(_key(tensor))
        if known is None and _storage(tensor) in self._torn:
            lost = Axis(1, None).nowhere()
            return lost, lost
        return known

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and note the axes of what it gives."""
        arguments = _bind(func, args, kwargs or {})
        found = [(name, tensor.shape, self.axes(tensor)) for name, tensor in _tensors(arguments)]
        maps = [(name, shape, axes) for name, shape, axes in found if axes is not None]
        output = func(*args, **(kwargs or {}))
        outputs = [tensor for _, tensor in _tensors({"": output})]
        if not maps or not outputs:
            return output
        constants = [shape for _, shape, axes in found if axes is None]
        name = func._schema.name.rpartition("::")[2]
        plain = name.rstrip("_")  # the underscore marks a change in place
        pointwise = torch.Tag.pointwise in func.tags
        call = Call(plain, pointwise, arguments, outputs[0], maps, constants, self._limits)
        axes = axes_after(call)
        for tensor in outputs:
            if plain != name:
                self._tear(tensor)
            self._know(tensor, axes if tensor.dim() == outputs[0].dim() else call.lost())
        return output

    def _know(self, tensor: Tensor, axes: Axes) -> None:
        self._maps[_key(tensor)] = axes
        self._alive.append(tensor)
        self.memory += tensor.numel() * tensor.element_size()

    def _tear(self, tensor: Tensor) -> None:
        """Forget what else was known about the memory that ``tensor`` was written to, if it is only a part of it."""
        storage, key = _storage(tensor), _key(tensor)
        stale = [known for known in self._maps if known[0] == storage and known != key]
        if stale or tensor.numel() * tensor.element_size() < tensor.untyped_storage().nbytes():
            self._torn.add(storage)
        for known in stale:
            del self._maps[known]


def axes_after(call: Call) -> Axes:
    """The axes of an operation's outputs."""
    if call.name in _RULES:
        return _RULES[call.name](call)
    return pointwise(call) if call.pointwise or call.name in POINTWISE else call.lost()


def displacement_limits(model: nn.Module) -> dict[int, float]:
    """Limits by which ``Tracer`` counts the model's DAU layers instead of by their displacements."""
    layers = [module for module in model.modules() if isinstance(module, DAUConv2d)]
    limits = {layer.mu.data_ptr(): layer.max_displacement for layer in layers if layer.max_displacement is not None}
    # A layer of whole pixels rounds its mu anew for every call, and hands its weight over as it is.
    whole = {layer.weight.data_ptr(): whole_limit(layer.max_displacement) for layer in layers if layer.whole_pixels}
    return limits | {address: limit for address, limit in whole.items() if limit < math.inf}


def _bind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in func._schema.arguments]
    defaults = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
    return defaults | dict(zip(names, args, strict=False)) | kwargs


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in arguments.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Tensor):
                yield name, item


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _key(tensor: Tensor) -> tuple[int, int, torch.Size, tuple[int, ...]]:
    return _storage(tensor), int(tensor.storage_offset()), tensor.shape, tensor.stride()
