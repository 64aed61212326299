"""The units of a layer, or of several layers together, as plain arrays in pixels of the layers' inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from daukit.checkpoint import Checkpoint, LayerUnits
from daukit.errors import CheckpointError
from daukit.nn import grid_points
from daukit.offsets.histograms import Array, Part, part_of

Group = Literal["layer", "stage", "network"]
Mask = NDArray[np.bool_]

NEAR = 0.1
"""A unit this close to where it started, in pixels, counts as one that has not moved."""


@dataclass(frozen=True)
class Units:
    """Units that are measured together. Displacements are ``dilation * mu``.

    Attributes:
        name: of the layer, the stage or the network.
        layers: names of the layers they come from.
        displacement: (2, units), rows y and x.
        weight: (units,), ``|w|``.
        limit: the largest of the layers' limits (y, x); None where no layer has one.
        points: (2, points), the grids where layers were initialised, each point once; None where there is none.
        has_points: (units,), whether a unit's layer has points.
        at_points: (units,), whether the unit is still at one of its layer's.
        has_limit: (units,), whether a unit's layer has a limit.
        at_limit: (2, units), whether the unit is at that limit along y, along x.
        pixel: (2, units), where the unit reads: in a layer of whole pixels rounded, elsewhere its displacement.
        is_rounded: (units,), whether a unit's layer reads at whole pixels.
    """

    name: str
    layers: tuple[str, ...]
    displacement: Array
    weight: Array
    limit: tuple[float, float] | None
    points: Array | None
    has_points: Mask
    at_points: Mask
    has_limit: Mask
    at_limit: Mask
    pixel: Array
    is_rounded: Mask

    @property
    def is_settled(self) -> bool:
        """True if there are layers of whole pixels, and all of their units lie on pixels."""
        moved = self.displacement[:, self.is_rounded] != self.pixel[:, self.is_rounded]
        return bool(self.is_rounded.any() and not moved.any())

    def part_at_points(self) -> Part | None:
        """The part that has not moved from a point, of the units that started on one; None where there is none."""
        return None if self.points is None else part_of(self.at_points[self.has_points], self.weight[self.has_points])

    def part_at_limit(self) -> tuple[Part, Part] | None:
        """The part at the limit of (y, x), of the units that have one; None where there is none."""
        if self.limit is None:
            return None
        y, x = (part_of(reached[self.has_limit], self.weight[self.has_limit]) for reached in self.at_limit)
        return y, x


def choose_groups(
    checkpoint: Checkpoint, layers: Sequence[str] | None, group: Group, stages: Sequence[str]
) -> dict[str, list[str]]:
    """Choose layers to measure together: {name of the group: names of its layers}.

    Args:
        checkpoint: any daukit file.
        layers: names of layers; default: every DAU layer.
        group: every layer by itself; the layers of a stage; or all of them. A stage is what a layer's name begins with
            before its first number, as ``stage1`` of ``stage1.0.conv2``; without a number, before its last part.
        stages: beginnings of names, in place of those that ``group="stage"`` finds; other layers are left out.

    Raises:
        ValueError: an unknown ``group``, or a stage that no layer belongs to.
        CheckpointError: the network has no DAU layer.
    """
    if group not in ("layer", "stage", "network"):
        raise ValueError(f'group must be "layer", "stage" or "network", got {group!r}')
    if not checkpoint.layer_names:
        raise CheckpointError(f"{checkpoint.called}: it has no DAU layer, so there are no displacements to plot")
    names = checkpoint.layer_names if layers is None else list(layers)
    if stages:
        found = {stage: [name for name in names if f"{name}.".startswith(f"{stage}.")] for stage in stages}
        for stage, members in found.items():
            if not members:
                raise ValueError(f"no layer's name begins with the stage {stage!r}; layers: {', '.join(names)}")
        return found
    if group == "network":
        return {"network": names}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stage(name) if group == "stage" else name, []).append(name)
    return groups


def read_units(checkpoint: Checkpoint, name: str, layers: Sequence[str], near: float) -> Units:
    """The units of ``layers`` as one group called ``name``; ``near``: how close to a point is still at it, in pixels.

    Raises:
        ValueError: a negative ``near``.
        CheckpointError: there is no such layer, or it is damaged or holds NaN.
    """
    if not near >= 0:
        raise ValueError(f"near must be at least 0, got {near}")
    parts = [_layer_units(checkpoint.layer(layer), near) for layer in layers]
    if len(parts) == 1:
        return Units(name, tuple(layers), *parts[0])
    displacement, weight, limits, points, *masks = zip(*parts, strict=True)
    with_limit, with_points = [pair for pair in limits if pair is not None], [p for p in points if p is not None]
    return Units(
        name,
        tuple(layers),
        np.concatenate(displacement, 1),
        np.concatenate(weight),
        (max(y for y, _ in with_limit), max(x for _, x in with_limit)) if with_limit else None,
        np.unique(np.concatenate(with_points, 1), axis=1) if with_points else None,
        *(np.concatenate(mask, -1) for mask in masks),
    )


def matching_layer(after: Checkpoint, before: Checkpoint, name: str) -> tuple[LayerUnits, LayerUnits]:
    """A layer of both files, whose units are the same ones.

    Raises:
        CheckpointError: a file lacks the layer, or its units are others.
    """
    now, then = after.layer(name), before.layer(name)
    if not torch.equal(now.counts, then.counts):
        raise CheckpointError(
            f"{before.called}: layer {name!r} has {then.weight.numel()} units in {then.counts.numel()} channel pairs, "
            f"and in {after.called} {now.weight.numel()} in {now.counts.numel()}, distributed otherwise; only the same "
            "units can be followed from one file to the other: take both from before pruning, or both from after it"
        )
    return now, then


def input_displacement(layer: LayerUnits, as_read: bool = False) -> Array:
    """Displacements in pixels of the layer's input, as they are stored or ``as_read``: (2, units)."""
    mu = layer.displacements if as_read else layer.mu
    displacement: Array = _dilation(layer)[:, None] * mu.double().numpy()
    return displacement


def half_width(displacement: Array, limit: tuple[float, float] | None) -> float:
    """Half the side of the square to bin: the limit; whole pixels where there is none, or where units lie beyond it."""
    farthest = float(np.abs(displacement).max(initial=0.0))
    half = max(limit or (0.0,))
    # Displacements are float32: at a limit like 3.99 they lie a rounding beyond it.
    return half if half > 0 and farthest <= half * (1 + 1e-6) else max(1.0, float(np.ceil(farthest)))


def _layer_units(
    layer: LayerUnits, near: float
) -> tuple[Array, Array, tuple[float, float] | None, Array | None, Mask, Mask, Mask, Mask, Array, Mask]:
    """The fields of ``Units`` after its names, for one layer."""
    displacement, weight = input_displacement(layer), layer.weight.double().abs().numpy()
    y, x = _dilation(layer)
    limit, farthest, points = layer.description["max_displacement"], layer.limit, _initialization_points(layer)
    pixel, is_rounded = input_displacement(layer, as_read=True), np.full(weight.size, layer.reads_whole_pixels)
    at_points, at_limit = np.zeros(weight.size, bool), np.zeros((2, weight.size), bool)
    if points is not None:
        at_points = _distance_to(points, displacement) <= near
    if limit is not None and farthest is not None:
        # torch compares in mu's own precision, in which displacements were projected: 3.3 is a smaller number in
        # float32.
        at_limit = (layer.mu.abs() >= farthest).numpy()
    has_points, has_limit = (np.full(weight.size, value is not None) for value in (points, limit))
    bounds = None if limit is None else (limit * float(y), limit * float(x))
    return displacement, weight, bounds, points, has_points, at_points, has_limit, at_limit, pixel, is_rounded


def _dilation(layer: LayerUnits) -> Array:
    return np.array(layer.description["dilation"], dtype=np.float64)


def _initialization_points(layer: LayerUnits) -> Array | None:
    options = dict(layer.description["initialization"])
    name = options.pop("name")
    if name not in ("grid", "diagonals"):
        return None
    points = grid_points(**({"rows": 2, "columns": 2} | options))
    if layer.reads_whole_pixels:
        points = points.round()  # where its units start, but for those of a pair that would share a pixel
    places: Array = _dilation(layer)[:, None] * points.double().numpy()
    return places


def _distance_to(points: Array, displacement: Array) -> Array:
    """Distance of every unit to the nearest of ``points``, all those of a grid: (units,)."""
    # The nearest point of a grid has the nearest y and the nearest x.
    return np.hypot(*(_distance_on_axis(np.unique(p), d) for p, d in zip(points, displacement, strict=True)))


def _distance_on_axis(places: Array, values: Array) -> Array:
    """Distance of every value to the nearest of ``places``, which ascend."""
    after = np.searchsorted(places, values).clip(1, max(len(places) - 1, 1))
    below, above = places[after - 1], places[np.minimum(after, len(places) - 1)]
    distance: Array = np.minimum(np.abs(values - below), np.abs(values - above))
    return distance


def _stage(name: str) -> str:
    parts = name.split(".")
    before = list(takewhile(lambda part: not part.isdecimal(), parts))
    if len(before) == len(parts):
        before.pop()
    return ".".join(before) or parts[0]
