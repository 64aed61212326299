"""How far the units of a network have moved since its training began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.nn.pixels import whole_limit

_START, _EPOCH_START = "start.", "epoch_start."
_DIGITS = 6
"""Decimals of a log: a millionth of a pixel, and of a share."""


@dataclass(frozen=True)
class UnitMoves:
    """How far units have moved, in pixels of their layer's input; each unit counts the same.

    Attributes:
        mean: mean distance between where the units read when the training began and where they read now.
        beyond_a_pixel: share of the units that are more than one pixel from there.
        at_limit: share of the units at their limit along y or x.
        epoch_mean: mean distance from where they read when the last epoch began.
    """

    mean: float
    beyond_a_pixel: float
    at_limit: float
    epoch_mean: float


@dataclass(frozen=True)
class Moves(UnitMoves):
    """How far the units of a network have moved, of all layers whose displacements learn, and of each.

    Attributes:
        layers: by their names, in the network's order.
    """

    layers: Mapping[str, UnitMoves]

    def to_json(self) -> dict[str, Any]:
        """What the line of a log says of them."""
        return {**_numbers(self), "layers": {name: _numbers(layer) for name, layer in self.layers.items()}}

    @classmethod
    def from_json(cls, data: object) -> Moves | None:
        """Read what ``to_json`` returned; None if ``data`` is nothing like it."""
        if not isinstance(data, dict) or not isinstance(data.get("layers"), dict) or not data["layers"]:
            return None
        own = _read({name: value for name, value in data.items() if name != "layers"})
        layers = {name: _read(layer) for name, layer in data["layers"].items()}
        sound = {name: layer for name, layer in layers.items() if layer is not None}
        return None if own is None or len(sound) < len(layers) else cls(**vars(own), layers=sound)


class MoveTracker:
    """Remembers where the units of a network were when its training, and when an epoch of it, began.

    Layers count whose displacements learn when the tracker is made, also later, when they are rounded for good.

    Args:
        model: a network at the start of its training.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            n: layer for n, layer in dau_layers(model).items() if layer.mu.requires_grad and layer.mu.numel()
        }
        self.begin()

    def begin(self) -> None:
        """Count from where the units are now."""
        self._start = {name: _positions(layer) for name, layer in self._layers.items()}
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Count the moves of an epoch from where the units are now."""
        self._epoch_start = {name: _positions(layer) for name, layer in self._layers.items()}

    def measure(self) -> Moves | None:
        """How far the units have moved; None if none of them learns to."""
        if not self._layers:
            return None
        units = [_distances(layer, self._start[name], self._epoch_start[name]) for name, layer in self._layers.items()]
        layers = dict(zip(self._layers, map(_summary, units), strict=True))
        return Moves(**vars(_summary(torch.cat(units, 1))), layers=layers)

    def tensors(self, *, inside_epoch: bool) -> dict[str, Tensor]:
        """All that a state has to hold to go on, as ``"start.conv1"``; inside an epoch also where that began."""
        kept = {_START + name: tensor for name, tensor in self._start.items()}
        return kept | ({_EPOCH_START + name: t for name, t in self._epoch_start.items()} if inside_epoch else {})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``tensors`` returned, when the network is as it was then; others are passed over.

        States of older versions have none: then the units count from where they are.
        """
        self.begin()
        for prefix, places in ((_START, self._start), (_EPOCH_START, self._epoch_start)):
            places |= {name: tensors[prefix + name] for name in places if prefix + name in tensors}


@torch.no_grad()
def _positions(layer: DAUConv2d) -> Tensor:
    """Where the units of a layer read, on the CPU: shaped like mu, in dilated pixels."""
    return layer.displacements().to("cpu", copy=True)


def _distances(layer: DAUConv2d, start: Tensor, epoch_start: Tensor) -> Tensor:
    """Per unit its distance from ``start``, from ``epoch_start``, and 1 if it is at its limit: (3, units)."""
    now, dilation = _positions(layer).reshape(2, -1), torch.tensor(layer.dilation, dtype=torch.float64)[:, None]

    def distance(before: Tensor) -> Tensor:
        return (dilation * (now.double() - before.reshape(2, -1).double())).square().sum(0).sqrt()

    return torch.stack([distance(start), distance(epoch_start), _at_limit(layer, now).double()])


def _at_limit(layer: DAUConv2d, displacement: Tensor) -> Tensor:
    if layer.max_displacement is None:
        return torch.zeros(displacement.shape[1], dtype=torch.bool)
    limit = whole_limit(layer.max_displacement) if layer.whole_pixels else layer.max_displacement
    # torch compares in mu's own precision, in which displacements were projected.
    return (displacement.abs() >= limit).any(0)


def _summary(units: Tensor) -> UnitMoves:
    """Shares and means of what ``_distances`` returned."""
    distance, epoch_distance, at_limit = units
    numbers = (distance.mean(), (distance > 1).double().mean(), at_limit.mean(), epoch_distance.mean())
    return UnitMoves(*(round(float(number), _DIGITS) for number in numbers))


def _numbers(moves: UnitMoves) -> dict[str, float]:
    return {name: getattr(moves, name) for name in UnitMoves.__dataclass_fields__}


def _read(data: object) -> UnitMoves | None:
    if not isinstance(data, dict) or set(data) != set(UnitMoves.__dataclass_fields__):
        return None
    if any(type(value) not in (int, float) or not 0 <= value < math.inf for value in data.values()):
        return None
    return UnitMoves(**data) if data["beyond_a_pixel"] <= 1 and data["at_limit"] <= 1 else None
