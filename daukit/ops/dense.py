"""The operator as ordinary convolutions: the bilinear taps of all units are materialised as one dense kernel.

Exact on any device torch runs on, and fast enough to train with. The kernel's window is the bounding box of the taps
that can touch the image. Work goes in chunks of output channels, so that far displacements never blow memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import BlurTaps, blur_taps
from daukit.ops.units import UnitList, unit_list

CHUNK_BYTES = 256 * 2**20
"""Budget of one chunk's dense kernel. One output channel's kernel is the least that a chunk can hold."""


class Dense(Backend):
    """One dense convolution per chunk of output channels."""

    name = "dense"

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """As ``Backend.forward``."""
        taps = blur_taps(tensors.sigma, geo.radius)
        blurred = _correlate(tensors.input, taps.gaussian, taps.gaussian, geo)
        units = unit_list(tensors.weight, tensors.mu, tensors.unit_ptr)
        output = blurred.new_zeros(geo.batch, geo.out_channels, *geo.out_size)
        for chunk in _chunks(units, geo):
            # An explicitly padded copy: oneDNN's unpadded forward convolution is a third faster than its padded one.
            padded = chunk.window.pad(blurred[:, chunk.inputs], geo, (0, 0))
            kernel = chunk.kernel(units)
            output[:, chunk.outputs] = F.conv2d(
                padded.to(compute), kernel.to(compute), stride=geo.stride, dilation=geo.dilation, groups=chunk.groups
            )
        return output if tensors.bias is None else output.add_(tensors.bias[:, None, None])

    def backward(
        self,
        grad_output: Tensor,
        tensors: Tensors,
        geo: Geometry,
        *,
        mu_gradient: str,
        needs: Needs,
        compute: torch.dtype,
    ) -> Gradients:
        """As ``Backend.backward``; computes only what ``needs`` asks for."""
        taps = blur_taps(tensors.sigma, geo.radius)
        units = unit_list(tensors.weight, tensors.mu, tensors.unit_ptr)
        exact = needs.mu and mu_gradient == "exact"
        maps = _maps(tensors.input, taps, geo, derivatives=needs.mu and not exact)
        grad_blurred = torch.zeros_like(tensors.input) if needs.input or needs.sigma else None
        grad_weight = torch.zeros_like(units.weight) if needs.weight else None
        grad_mu = torch.zeros_like(units.mu) if needs.mu else None
        for chunk in _chunks(units, geo, slopes=exact):
            error = grad_output[:, chunk.outputs].contiguous().to(compute)
            if grad_blurred is not None:
                grad_blurred[:, chunk.inputs] += chunk.grad_image(error, units, geo)
            if grad_weight is not None or grad_mu is not None:
                dots = chunk.tap_dots(maps, error, geo)
                if grad_weight is not None:
                    grad_weight[chunk.units] = chunk.cells.interpolate(dots[0])
                if grad_mu is not None:
                    slopes = chunk.cells.slopes(dots[0]) if exact else [chunk.cells.interpolate(d) for d in dots[1:]]
                    grad_mu[:, chunk.units] = units.weight[chunk.units] * torch.stack(slopes)
        grad_input, grad_sigma = _through_the_blur(grad_blurred, tensors, taps, geo, needs)
        return Gradients(
            grad_input,
            None if grad_weight is None else grad_weight.reshape(tensors.weight.shape),
            None if grad_mu is None else grad_mu.reshape(tensors.mu.shape),
            grad_sigma,
        )


def _through_the_blur(
    grad_blurred: Tensor | None, tensors: Tensors, taps: BlurTaps, geo: Geometry, needs: Needs
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients for input and sigma from that of the blurred input."""
    grad_input = grad_sigma = None
    if grad_blurred is not None and needs.input:
        # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
        grad_input = _correlate(grad_blurred, taps.gaussian, taps.gaussian, geo)
    if grad_blurred is not None and needs.sigma:
        # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
        image = tensors.input
        by_sigma = _correlate(image, taps.sigma, taps.gaussian, geo) + _correlate(image, taps.gaussian, taps.sigma, geo)
        grad_sigma = (grad_blurred * by_sigma).sum().reshape(tensors.sigma.shape)
    return grad_input, grad_sigma


def _maps(input: Tensor, taps: BlurTaps, geo: Geometry, derivatives: bool) -> Tensor:
    """The maps that weights and displacements are correlated with: ``G * X`` and, for the paper's mu gradient, its two
    derivatives ``dG/dmu * X``: (maps, N, C, H, W).
    """
    maps = [_correlate(input, taps.gaussian, taps.gaussian, geo)]
    if derivatives:
        maps.append(_correlate(input, taps.mu, taps.gaussian, geo))
        maps.append(_correlate(input, taps.gaussian, taps.mu, geo))
    return torch.stack(maps)


class Window(NamedTuple):
    """Bounding box of the integer taps of a chunk: first tap and number of taps per axis."""

    first: tuple[int, int]
    size: tuple[int, int]

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
        index: ``(4, units)`` int64; taps (y, x), (y, x+1), (y+1, x), (y+1, x+1), 0 where the tap is dead.
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

    def kernel(self, units: UnitList) -> Tensor:
        """Dense kernel of the chunk: (outputs, inputs per group, window y, window x)."""
        shape = (self.outputs.stop - self.outputs.start, self.inputs_per_group, *self.window.size)
        weight = units.weight[self.units]
        flat = weight.new_zeros(shape).reshape(-1)
        flat.index_add_(0, self.cells.index.reshape(-1), (weight * self.cells.coefficients()).reshape(-1))
        return flat.reshape(shape)

    def tap_dots(self, maps: Tensor, error: Tensor, geo: Geometry) -> Tensor:
        """Dot products of ``error`` with every map displaced by every tap: (maps, *kernel shape)."""
        count, batch, _, height, width = maps.shape
        grouped = maps[:, :, self.inputs].reshape(count, batch, self.groups, self.inputs_per_group, height, width)
        # One convolution for all maps: they become further input channels of their group.
        image = grouped.permute(1, 2, 0, 3, 4, 5).reshape(batch, -1, height, width)
        padding = self.window.padding(geo)
        flat = (error.shape[1], count * self.inputs_per_group, *self.window.size)
        padded = self.window.pad(image, geo, padding).to(error.dtype)
        dots: Tensor = conv2d_weight(padded, flat, error, geo.stride, padding, geo.dilation, self.groups)
        shape = (error.shape[1], count, self.inputs_per_group, *self.window.size)
        return dots.to(maps.dtype).reshape(shape).transpose(0, 1)

    def grad_image(self, error: Tensor, units: UnitList, geo: Geometry) -> Tensor:
        """Adjoint of the chunk's convolution: (N, inputs, H, W)."""
        padding = self.window.padding(geo)
        height, width = (geo.in_size[axis] + sum(self.window.edges(axis, geo)) - 2 * padding[axis] for axis in (0, 1))
        shape = (geo.batch, self.inputs.stop - self.inputs.start, height, width)
        kernel = self.kernel(units).to(error.dtype)
        grad = conv2d_input(shape, kernel, error, geo.stride, padding, geo.dilation, self.groups)
        return self.window.unpad(grad, geo, padding)


def _chunks(units: UnitList, geo: Geometry, slopes: bool = False) -> Iterator[Chunk]:
    """Cut the output channels so that each chunk's dense kernel stays within the budget.

    At an integer displacement the second tap has no weight; it is dropped unless ``slopes`` asks for derivatives there.
    """
    if min(geo.batch, *geo.in_size) == 0 or units.weight.numel() == 0:
        return
    per_input = geo.in_channels // geo.groups
    per_group = geo.out_channels // geo.groups
    floor = units.mu.detach().floor().clamp(-(2**30), 2**30).long()
    fraction = units.mu.detach() - units.mu.detach().floor()
    taps = torch.stack([floor, floor + 1], dim=1)  # (2 axes, 2 taps, U)
    ranges = [_live_taps(axis, geo) for axis in (0, 1)]
    alive = torch.stack([(taps[a] >= lo) & (taps[a] <= hi) for a, (lo, hi) in enumerate(ranges)])
    if not slopes:
        alive[:, 1] &= fraction > 0
    whole = _window(taps, alive)
    if whole is None:
        return
    channel_bytes = per_input * whole.size[0] * whole.size[1] * units.weight.element_size()
    step = max(1, CHUNK_BYTES // channel_bytes)
    for first, last in _output_runs(step, per_group, geo.out_channels):
        run = slice(int(units.pair_ptr[first * per_input]), int(units.pair_ptr[last * per_input]))
        window = whole if last - first == geo.out_channels else _window(taps[..., run], alive[..., run])
        if window is None:
            continue
        groups = max(1, (last - first) // per_group)
        group = first // per_group
        pair = units.pair[run] - first * per_input
        cells = _cells(taps[..., run], alive[..., run], fraction[:, run], pair, window)
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
    index = at.reshape(4, -1)
    return Cells(torch.where(live, index, 0), live.to(fraction.dtype), fraction)


def _correlate(image: Tensor, along_y: Tensor, along_x: Tensor, geo: Geometry) -> Tensor:
    """Correlate every channel with ``along_y (x) along_x``, taps ``dilation`` apart; zero padding, same size."""
    if 0 in geo.in_size:
        return image  # torch's convolution refuses an empty one
    channels, (dy, dx), radius = image.shape[1], geo.dilation, geo.radius
    column = along_y.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = along_x.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    image = F.conv2d(image, column, padding=(radius * dy, 0), dilation=(dy, 1), groups=channels)
    return F.conv2d(image, row, padding=(0, radius * dx), dilation=(1, dx), groups=channels)
