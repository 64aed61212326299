"""Weights of units at whole pixels that come nearest to a layer's outputs on images, by linear least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_SYSTEM = 4096
"""Units of one output channel up to which a layer is refitted on images: 128 MiB of normal equations."""

ROWS_PER_UNIT = 8
"""Positions of outputs that the weight of one unit is worth."""

FEWEST_ROWS = 4096

_RIDGE = 1e-3
"""How strongly weights are held to those they come with, as a share of the mean square of what units read."""

_BLOCK = 2**22
"""Numbers that units read at a time."""


@dataclass(frozen=True)
class PixelUnits:
    """The units of a layer, each at a whole pixel.

    Attributes:
        pixel: (2, units), whole numbers, in dilated pixels.
        pair: (units,) int64, in rising order.
        out_channels: of the layer.
        in_channels: of the layer.
        groups: of the layer.
        stride: of the layer, (y, x).
        dilation: of the layer, (y, x).
        taps: (2 radius + 1,) of its blur.
    """

    pixel: Tensor
    pair: Tensor
    out_channels: int
    in_channels: int
    groups: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    taps: Tensor

    @property
    def counts(self) -> Tensor:
        """Units of every output channel: (out_channels,) int64."""
        return torch.bincount(self.pair // (self.in_channels // self.groups), minlength=self.out_channels)

    @property
    def largest(self) -> int:
        """Units of the output channel that has most of them."""
        return int(self.counts.max())

    def reach(self, size: tuple[int, int]) -> tuple[int, int]:
        """Pixels beyond a map of ``size`` that units read, as far as it matters: zeros, further out as well."""
        y, x = self.steps(size).abs().amax(1).tolist() if self.pair.numel() else (0, 0)
        return y, x

    def steps(self, size: tuple[int, int]) -> Tensor:
        """(2, units) int64: pixels of a map of ``size`` from an output to what units read, at most its size."""
        bounds = torch.tensor(size)[:, None]
        steps = self.pixel * torch.tensor(self.dilation)[:, None]
        return torch.minimum(torch.maximum(steps, -bounds), bounds).long()


class Refit(NamedTuple):
    """Weights that were refitted on a layer's outputs.

    Attributes:
        weight: (units,) float64.
        bias: (out_channels,) float64, or None without one.
        error_before: root mean square error of the outputs with the weights given, as a share of the outputs' standard
            deviation within a channel.
        error: the same with the new weights.
    """

    weight: Tensor
    bias: Tensor | None
    error_before: float
    error: float


def refit_outputs(
    inputs: Tensor, outputs: Tensor, units: PixelUnits, weight: Tensor, bias: Tensor | None, generator: torch.Generator
) -> Refit:
    """Find the weights, and the bias, with which the layer's outputs on ``inputs`` are nearest to ``outputs``.

    All units of an output channel, over its input channels, are one linear problem. What the images leave open, as the
    weights of units that read nothing but zeros, stays as it is given.

    Args:
        inputs: (N, in_channels, H, W), of the layer.
        outputs: (N, out_channels, ceil(H / stride), ceil(W / stride)), as they should be.
        units: where units read.
        weight: (units,), to start from.
        bias: (out_channels,), or None: the layer has none, and gets none.
        generator: chooses the positions that count, ``ROWS_PER_UNIT`` for every unit of the largest channel.
    """
    counts = units.counts
    read, rows, position = _readable(inputs, outputs, units, generator)
    wanted = outputs.permute(0, 2, 3, 1).reshape(-1, units.out_channels)[position].double()  # (rows, out_channels)
    steps = _addresses(read, units, (inputs.shape[2], inputs.shape[3]))
    weight, bias = weight.to(torch.float64, copy=True), None if bias is None else bias.to(torch.float64, copy=True)
    flat, before, after, spread = read.flatten(), 0.0, 0.0, 0.0
    ends = counts.cumsum(0)
    for channel in range(units.out_channels):
        own = slice(int(ends[channel] - counts[channel]), int(ends[channel]))
        missing = wanted[:, channel] - (0 if bias is None else bias[channel])
        gram, right, squares = _system(flat, rows, steps[own], missing, weight[own], bias is not None)
        change = _solve(gram, right, len(gram) - int(counts[channel]))
        weight[own] += change[: counts[channel]]
        if bias is not None:
            bias[channel] += change[-1]
        before += squares
        after += float(squares - 2 * change @ right + change @ gram @ change)
        spread += float(wanted[:, channel].var(correction=0)) * len(wanted)
    scale = spread or 1.0
    return Refit(weight, bias, (before / scale) ** 0.5, (max(after, 0.0) / scale) ** 0.5)


def _readable(
    inputs: Tensor, outputs: Tensor, units: PixelUnits, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The blurred inputs with zeros around, in them the addresses of positions that count, and which ones these are."""
    height, width = outputs.shape[2:]
    number = outputs.shape[0] * height * width
    wanted = max(FEWEST_ROWS, ROWS_PER_UNIT * units.largest)
    position = torch.randperm(number, generator=generator)[:wanted].sort().values
    y, x = units.reach((inputs.shape[2], inputs.shape[3]))
    read = F.pad(_blurred(inputs, units), (x, x, y, y))  # (N, C, H + 2 y, W + 2 x)
    image, row = position // (height * width), position // width % height
    column = position % width
    line = read.shape[3]
    rows = image * read[0].numel() + (row * units.stride[0] + y) * line + column * units.stride[1] + x
    return read, rows, position


def _blurred(inputs: Tensor, units: PixelUnits) -> Tensor:
    channels, radius = inputs.shape[1], units.taps.numel() // 2
    taps = units.taps.to(inputs.dtype)
    for axis in (0, 1):
        d = units.dilation[axis]
        kernel = taps.reshape(1, 1, -1, 1) if axis == 0 else taps.reshape(1, 1, 1, -1)
        pad, dilation = ((radius * d, 0), (d, 1)) if axis == 0 else ((0, radius * d), (1, d))
        kernel = kernel.expand(channels, 1, *kernel.shape[2:])
        inputs = F.conv2d(inputs, kernel, padding=pad, dilation=dilation, groups=channels)
    return inputs


def _addresses(read: Tensor, units: PixelUnits, size: tuple[int, int]) -> Tensor:
    """What to add to the address of a position to get what every unit reads there: (units,)."""
    own, out = units.in_channels // units.groups, units.out_channels // units.groups
    channel = units.pair // own // out * own + units.pair % own
    y, x = units.steps(size)
    steps: Tensor = channel * read[0, 0].numel() + y * read.shape[3] + x
    return steps


def _system(
    read: Tensor, rows: Tensor, steps: Tensor, missing: Tensor, weight: Tensor, biased: bool
) -> tuple[Tensor, Tensor, float]:
    """Normal equations of the change of one channel's weights, and of its bias, and the squared error without it."""
    unknowns = len(steps) + biased
    gram, right, squares = torch.zeros(unknowns, unknowns).double(), torch.zeros(unknowns).double(), 0.0
    block = max(1, _BLOCK // max(1, unknowns))
    for start in range(0, len(rows), block):
        values = read[rows[start : start + block, None] + steps].double()  # (rows, units)
        error = missing[start : start + block] - values @ weight
        if biased:
            values = torch.cat([values, torch.ones(len(values), 1).double()], dim=1)
        gram += values.T @ values
        right += values.T @ error
        squares += float(error.square().sum())
    return gram, right, squares


def _solve(gram: Tensor, right: Tensor, free: int) -> Tensor:
    """The change of least error; where images do not tell, the ridge holds it to zero but for ``free`` unknowns."""
    squares = gram.diagonal()[: len(gram) - free]
    ridge = _RIDGE * squares.mean() if squares.any() else 1.0  # where nothing is read, nothing changes
    held = torch.cat([torch.ones(len(squares)), torch.zeros(free)]).to(gram) * ridge
    change: Tensor = torch.linalg.solve(gram + held.diag(), right)
    return change
