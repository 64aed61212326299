"""All units of a layer as dense filters, in chunks of output channels, so that far displacements never blow memory.

A filter's window is the bounding box of the taps that can touch the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.ops.contract import Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.units import UnitList

CHUNK_BYTES = 256 * 2**20
"""Budget of one chunk's filters. One output channel's filters are the least that a chunk can hold."""


class Window(NamedTuple):
    """Bounding box of the integer taps of a chunk: first tap and number of taps per axis."""

    first: tuple[int, int]
    size: tuple[int, int]

    def range(self, axis: int) -> tuple[int, int]:
        """First and last tap."""
        return self.first[axis], self.first[axis] + self.size[axis] - 1

    def edges(self, axis: int, geo: Geometry) -> tuple[int, int]:
        """Zeros to add before and after the image (negative: to crop), so that the window gives ``geo.out_size``."""
        before = -geo.dilation[axis] * self.first[axis]
        read = geo.stride[axis] * (geo.out_size[axis] - 1) + geo.dilation[axis] * (self.size[axis] - 1) + 1
        return before, read - before - geo.in_size[axis]

    def padding(self, geo: Geometry) -> tuple[int, int]:
        """The part of the edges, per axis, that a convolution's own symmetric padding can provide."""
        y, x = (max(0, min(self.edges(axis, geo))) for axis in (0, 1))
        return y, x

    def pad(self, image: Tensor, geo: Geometry, padding: tuple[int, int]) -> Tensor:
        """Pad or crop ``image`` (..., H, W) by the edges, less the ``padding`` that the convolution adds itself."""
        (top, bottom), (left, right) = self.edges(0, geo), self.edges(1, geo)
        y, x = padding
        return F.pad(image, (left - x, right - x, top - y, bottom - y))

    def unpad(self, padded: Tensor, geo: Geometry, padding: tuple[int, int]) -> Tensor:
        """Adjoint of ``pad``."""
        (top, bottom), (left, right) = self.edges(0, geo), self.edges(1, geo)
        y, x = padding
        return F.pad(padded, (x - left, x - right, y - top, y - bottom))


@dataclass(frozen=True)
class Cells:
    """Bilinear cells of a chunk's units (Eq. 14), as indices into its flattened kernel ``(pairs * taps)``.

    Attributes:
        index: ``(4, units)`` int64; taps (y, x), (y, x+1), (y+1, x), (y+1, x+1); the pair's first for a dead tap.
        alive: ``(4, units)``; 0 for a tap that no output position can read inside the image.
        fraction: ``(2, units)``, the fractional part of mu.
    """

    index: Tensor
    alive: Tensor
    fraction: Tensor

    def coefficients(self) -> Tensor:
        """Interpolation weights of the four taps: (4, units)."""
        fy, fx = self.fraction
        return torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]) * self.alive

    def interpolate(self, dots: Tensor) -> Tensor:
        """Interpolate a map over the kernel's taps at every unit: (units,)."""
        return (dots.reshape(-1)[self.index] * self.coefficients()).sum(0)

    def slopes(self, dots: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative (y, x) of ``interpolate`` by mu: (units,) each."""
        fy, fx = self.fraction
        t00, t01, t10, t11 = dots.reshape(-1)[self.index] * self.alive
        return (1 - fx) * (t10 - t00) + fx * (t11 - t01), (1 - fy) * (t01 - t00) + fy * (t11 - t10)


@dataclass(frozen=True)
class Chunk:
    """A run of output channels with the input channels and units they read."""

    outputs: slice
    inputs: slice
    units: slice
    groups: int
    inputs_per_group: int
    window: Window
    cells: Cells

    @property
    def out_channels(self) -> int:
        """Output channels of the chunk."""
        return int(self.outputs.stop - self.outputs.start)

    def kernel(self, units: UnitList) -> Tensor:
        """Dense kernel of the chunk: (outputs, inputs per group, window y, window x)."""
        shape = (self.out_channels, self.inputs_per_group, *self.window.size)
        weight = units.weight[self.units]
        flat = weight.new_zeros(shape).reshape(-1)
        flat.index_add_(0, self.cells.index.reshape(-1), (weight * self.cells.coefficients()).reshape(-1))
        return flat.reshape(shape)


class UnitGradients:
    """Gradients of weight and mu, summed from dot products of the output gradient with maps displaced by every tap.

    Attributes:
        asked_for: True if one of the two is needed.
        by_slopes: True if mu's is the exact one: slopes of the dot products.
        by_maps: True if mu's is the paper's: dot products with two further maps (``blurred_maps``).
    """

    def __init__(self, units: UnitList, needs: Needs, mu_gradient: str):
        self._units = units
        self._weight = torch.zeros_like(units.weight) if needs.weight else None
        self._mu = torch.zeros_like(units.mu) if needs.mu else None
        self.asked_for = needs.weight or needs.mu
        self.by_slopes = needs.mu and mu_gradient == "exact"
        self.by_maps = needs.mu and mu_gradient == "gaussian"

    def add(self, chunk: Chunk, dots: Tensor) -> None:
        """Add what the units of a chunk get of ``dots``: (maps, *kernel shape)."""
        if self._weight is not None:
            self._weight[chunk.units] += chunk.cells.interpolate(dots[0])
        if self._mu is not None:
            cells = chunk.cells
            slopes = cells.slopes(dots[0]) if self.by_slopes else [cells.interpolate(one) for one in dots[1:]]
            self._mu[:, chunk.units] += self._units.weight[chunk.units] * torch.stack(list(slopes))

    def flat(self) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight ``(units,)`` and mu ``(2, units)``; None where none is needed."""
        return self._weight, self._mu

    def shaped_as(self, tensors: Tensors) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and mu in the shapes of their tensors; None where none is needed."""
        return (
            None if self._weight is None else self._weight.reshape(tensors.weight.shape),
            None if self._mu is None else self._mu.reshape(tensors.mu.shape),
        )


class Filters:
    """All units of a layer as dense filters.

    At an integer displacement the second tap has no weight; it is dropped unless ``slopes`` asks for derivatives there.

    Attributes:
        window: the taps of all filters that can touch the image; None where there are none.
    """

    def __init__(self, units: UnitList, geo: Geometry, slopes: bool = False):
        self._units, self._geo = units, geo
        self.window: Window | None = None
        if min(geo.batch, *geo.in_size) == 0 or units.weight.numel() == 0:
            return
        floor = units.mu.detach().floor().clamp(-(2**30), 2**30).long()
        self._fraction = units.mu.detach() - units.mu.detach().floor()
        self._taps = torch.stack([floor, floor + 1], dim=1)  # (2 axes, 2 taps, U)
        expected = None if units.limit is None else expected_window(geo, units.limit)
        ranges = [_live_taps(axis, geo) if expected is None else expected.range(axis) for axis in (0, 1)]
        self._alive = torch.stack(
            [(taps >= low) & (taps <= high) for taps, (low, high) in zip(self._taps, ranges, strict=True)]
        )
        if not slopes:
            self._alive[:, 1] &= self._fraction > 0
        self.window = _window(self._taps, self._alive) if expected is None else expected

    def chunks(self, pair_bytes: int | None = None) -> Iterator[Chunk]:
        """Cut the output channels so that a chunk stays within the budget.

        Args:
            pair_bytes: what a pair of channels takes; if None, the taps of its filter.
        """
        units, geo, whole = self._units, self._geo, self.window
        if whole is None:
            return
        per_input = geo.in_channels // geo.groups
        per_group = geo.out_channels // geo.groups
        taps_bytes = whole.size[0] * whole.size[1] * units.weight.element_size()
        step = max(1, CHUNK_BYTES // (per_input * (pair_bytes or taps_bytes)))
        if units.limit is not None and units.per_pair is None:
            step = geo.out_channels  # where the units of a channel begin is known on the device only
        for first, last in _output_runs(step, per_group, geo.out_channels):
            run = units.run(first * per_input, last * per_input)
            taps, alive = self._taps[..., run], self._alive[..., run]
            is_whole = units.limit is not None or last - first == geo.out_channels
            window = whole if is_whole else _window(taps, alive)
            if window is None:
                continue
            groups = max(1, (last - first) // per_group)
            group = first // per_group
            pair = units.pair[run] - first * per_input
            cells = _cells(taps, alive, self._fraction[:, run], pair, window)
            inputs = slice(group * per_input, (group + groups) * per_input)
            yield Chunk(slice(first, last), inputs, run, groups, per_input, window, cells)


def _output_runs(step: int, per_group: int, out_channels: int) -> Iterator[tuple[int, int]]:
    """Runs of output channels that are whole groups, or lie within one group when a group is more than ``step``."""
    if step >= per_group:
        step = step // per_group * per_group
        yield from ((o, min(o + step, out_channels)) for o in range(0, out_channels, step))
    else:
        for start in range(0, out_channels, per_group):
            yield from ((o, min(o + step, start + per_group)) for o in range(start, start + per_group, step))


def expected_window(geo: Geometry, limit: int) -> Window:
    """The taps of displacements within ``limit`` dilated pixels that can lie inside the image."""
    (top, bottom), (left, right) = (
        (max(low, -limit), min(high, limit)) for low, high in (_live_taps(axis, geo) for axis in (0, 1))
    )
    return Window((top, left), (bottom - top + 1, right - left + 1))


def _live_taps(axis: int, geo: Geometry) -> tuple[int, int]:
    """First and last integer tap that reads inside the image at some output position."""
    last_output = geo.stride[axis] * (geo.out_size[axis] - 1)
    return -(last_output // geo.dilation[axis]), (geo.in_size[axis] - 1) // geo.dilation[axis]


def _window(taps: Tensor, alive: Tensor) -> Window | None:
    """Bounding box of the live taps, or None where none is alive. A unit counts only when both its axes are alive."""
    used = alive.any(1).all(0)  # (U,)
    if not bool(used.any()):
        return None
    first, size = [], []
    for axis in (0, 1):
        live = taps[axis][alive[axis] & used]
        low, high = int(live.min()), int(live.max())
        first.append(low)
        size.append(high - low + 1)
    return Window((first[0], first[1]), (size[0], size[1]))


def _cells(taps: Tensor, alive: Tensor, fraction: Tensor, pair: Tensor, window: Window) -> Cells:
    """Flatten the taps of units into kernel indices."""
    (y0, x0), (rows, columns) = window
    live = (alive[0][:, None] & alive[1][None]).reshape(4, -1)  # taps (y, x) in the order of Cells.index
    at = (pair * rows + (taps[0] - y0)[:, None]) * columns + (taps[1] - x0)[None]  # (2, 2, U)
    # Dead taps add nothing, each to its own pair: a GPU adds to one place one after another.
    index = torch.where(live, at.reshape(4, -1), pair * (rows * columns))
    return Cells(index, live.to(fraction.dtype), fraction)
