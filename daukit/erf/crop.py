"""The part of an input that matters to the probed positions: everything else is cut away where that changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from daukit.errors import NetworkError
from daukit.receptive_field.axes import Axis, Place, grid_of
from daukit.receptive_field.calls import Axes
from daukit.receptive_field.layers import TracedLayer, TracedPass, trace_layers

_ROUNDING = 1e-6
"""Pixels by which sums of fractions may be off."""

_AGREEMENT = 1e-4
"""Outputs of the crop may differ by this share of the largest one: float32 sums in another order, no more."""


@dataclass(frozen=True)
class Crop:
    """A part of the input.

    Attributes:
        rows: those of the input.
        columns: likewise.
        traced: the network's pass over the part, with the positions that were probed in the whole input's maps.
    """

    rows: slice
    columns: slice
    traced: TracedPass


def crop_image(model: nn.Module, layers: Mapping[str, nn.Module], image: Tensor, whole: TracedPass) -> Crop | None:
    """Crop an image (1, C, H, W) to what the probed positions depend on, widened to the grid of all strides on the way.

    The crop holds only if every operation before the layers moves with its input, if the arithmetic comes out the same
    on the crop, and if the probed outputs do too.

    Args:
        model: the network, frozen.
        layers: its modules by name.
        image: the whole one.
        whole: the network's pass over it.

    Returns:
        None where the crop would be the whole image, or does not hold.
    """
    rows, columns = (_window(whole, i, image.shape[2 + i]) for i in (0, 1))
    part = image[:, :, rows, columns]
    if part.shape == image.shape:
        return None
    positions = {name: _moved(layer, rows.start, columns.start) for name, layer in whole.layers.items()}
    try:
        traced = trace_layers(model, layers, part, positions=positions)
    except (ValueError, IndexError, NetworkError):  # the network cannot take the crop, or its maps are of other sizes
        return None
    same = all(_agree(layer, traced.layers[name]) for name, layer in whole.layers.items())
    return Crop(rows, columns, traced) if same else None


def _window(whole: TracedPass, i: int, size: int) -> slice:
    """The input's rows (i = 0) or columns (i = 1) that all probed positions together can see."""
    seen = [(layer.axes[i] if layer.axes else None, layer.position[i]) for layer in whole.layers.values()]
    if not all(axis is not None and axis.is_local for axis, _ in seen):
        return slice(0, size)
    axes = [(axis, position) for axis, position in seen if axis is not None]
    grid = grid_of(axis for axis, _ in axes)
    start = min(axis.scale * position + axis.first for axis, position in axes) + _ROUNDING
    end = max(axis.scale * position + axis.last for axis, position in axes) + _ROUNDING
    # It ends on the grid too: maps that were made smaller and larger again must meet those that were not.
    return slice(max(0, math.floor(start / grid)) * grid, min(size, math.ceil((math.floor(end) + 1) / grid) * grid))


def _moved(layer: TracedLayer, top: int, left: int) -> tuple[int, int]:
    """The probed position when the input begins at (top, left)."""
    assert layer.axes is not None  # or there would be no crop
    y, x = (
        p - round(start / axis.scale) for p, start, axis in zip(layer.position, (top, left), layer.axes, strict=True)
    )
    return y, x


def _agree(whole: TracedLayer, part: TracedLayer) -> bool:
    """Check that the layer is the same, seen through the crop: its arithmetic and the probed outputs."""
    if whole.axes is None or part.axes is None:
        return False
    same = _without_size(whole.axes) == _without_size(part.axes)
    largest = float(whole.outputs.abs().max())
    return same and bool(((whole.outputs - part.outputs).abs() <= _AGREEMENT * largest).all())


def _without_size(axes: Axes) -> list[Axis]:
    return [replace(axis, size=0, place=None if axis.place is None else Place(axis.place.dim)) for axis in axes]
