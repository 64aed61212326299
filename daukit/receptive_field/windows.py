"""Operations with windows: convolutions, pools, pads, resizes and DAU layers. By the dispatcher's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from daukit.receptive_field.axes import Axis
from daukit.receptive_field.calls import Axes, Call

AxisChange = Callable[[Axis, int, int], Axis]
"""(axis, size of the result, index of its dimension among the windows' own) to the axis of the result."""


_HALF_WINDOWS = {"nearest": 0, "bilinear": 1, "bicubic": 2}
"""Distance from its middle to which a resize reads, in pixels of its input."""


def _windows(call: Call, spatial: int, change: AxisChange, *, sums_channels: bool = False) -> Axes:
    """Apply ``change`` to axes that fill one of the last ``spatial`` dimensions; others are left as they are."""
    first = len(call.shape) - spatial

    def place(axis: Axis) -> Axis:
        if axis.place is None:
            return axis
        index = axis.place.dim - first
        if index < 0:
            return axis.nowhere() if sums_channels and index == -1 else axis
        return change(axis, call.output.shape[axis.place.dim], index) if axis.fills(call.shape) else axis.nowhere()

    return call.each(place)


def _per_dim(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


def _convolution(call: Call) -> Axes:
    weight: Tensor = call.arguments["weight"]
    spatial = weight.dim() - 2
    if call.maps[0][0] != "input":  # a filter that depends on the input
        return call.lost()
    names = ("stride", "padding", "dilation", "output_padding")
    stride, padding, dilation, added = (_per_dim(call.arguments[name], spatial) for name in names)

    def change(axis: Axis, size: int, i: int) -> Axis:
        extent = dilation[i] * (weight.shape[2 + i] - 1)
        if call.arguments["transposed"]:  # position q gets from those p with stride * p - padding + tap = q
            step = stride[i]
            beyond = max(0, padding[i] - extent - added[i] + step - 1) / step
            return axis.window(size, 1 / step, (padding[i] - extent) / step, padding[i] / step, beyond=beyond)
        return axis.window(size, stride[i], -padding[i], extent - padding[i])

    return _windows(call, spatial, change, sums_channels=True)


def _pool(call: Call) -> Axes:
    spatial = int(call.name.partition("_pool")[2][0])
    kernel, padding = (_per_dim(call.arguments[name], spatial) for name in ("kernel_size", "padding"))
    stride = _per_dim(call.arguments["stride"] or kernel, spatial)  # an absent stride is the window's size
    dilation = _per_dim(call.arguments.get("dilation", 1), spatial)

    def change(axis: Axis, size: int, i: int) -> Axis:
        return axis.window(size, stride[i], -padding[i], dilation[i] * (kernel[i] - 1) - padding[i])

    return _windows(call, spatial, change)


def _adaptive_pool(call: Call) -> Axes:
    """Position q covers the pixels that touch [q, q + 1) * before / after."""

    def change(axis: Axis, size: int, i: int) -> Axis:
        step = axis.size / size
        spill = 0.0 if axis.size % size == 0 else 1 - 1 / size
        return axis.window(size, step, -spill, step - 1 + spill)

    return _windows(call, 2, change)


def _pad(call: Call) -> Axes:
    amounts = call.arguments["pad"] if call.name == "constant_pad_nd" else call.arguments["padding"]
    spatial = len(amounts) // 2

    def change(axis: Axis, size: int, i: int) -> Axis:
        before, after = amounts[2 * (spatial - 1 - i) :][:2]  # the last dimension comes first
        if before == after == 0:
            return axis
        padded = axis.window(size, 1, -before, -before, beyond=max(0, -after))
        return padded if call.name == "constant_pad_nd" else padded.fixed()  # mirrors stand at the image's border

    return _windows(call, spatial, change)


def _upsample(call: Call) -> Axes:
    """Output pixel q covers its share of the input: their middles meet, or their corners where aligned."""
    aligned = call.arguments.get("align_corners", False)
    half = next(pixels for kind, pixels in _HALF_WINDOWS.items() if kind in call.name)

    def change(axis: Axis, size: int, i: int) -> Axis:
        if aligned:
            step = (axis.size - 1) / max(1, size - 1)
            resized = axis.window(size, step, -half, half, middle=0)
            # By a whole factor, positions of both maps meet everywhere, and not at the image's borders alone.
            return resized if axis.size > 1 and (size - 1) % (axis.size - 1) == 0 else resized.fixed()
        step = axis.size / size
        middle = (step - 1) / 2
        if half == 0:  # one pixel, whose middle is at most this far away
            off = (1 - step) / 2 if size % axis.size == 0 else 0.5 + abs(middle)
            return axis.window(size, step, middle - off, middle + off)
        return axis.window(size, step, middle - half, middle + half)

    return _windows(call, 2, change)


def _pixel_shuffle(call: Call) -> Axes:
    factor = call.arguments["upscale_factor"]

    def change(axis: Axis, size: int, i: int) -> Axis:
        return axis.window(size, 1 / factor, (1 - factor) / factor, 0)

    return _windows(call, 2, change)


def _pixel_unshuffle(call: Call) -> Axes:
    factor = call.arguments["downscale_factor"]
    return _windows(call, 2, lambda axis, size, i: axis.window(size, factor, 0, factor - 1))


def _dau(call: Call) -> Axes:
    """From the first tap of the leftmost unit to the last one of the rightmost, and the blur around them."""
    mu: Tensor = call.arguments["mu"]
    stride, dilation, radius = (call.arguments[name] for name in ("stride", "dilation", "radius"))
    limit = call.limits.get(mu.data_ptr(), call.limits.get(call.arguments["weight"].data_ptr()))

    def change(axis: Axis, size: int, i: int) -> Axis:
        low, high = _taps(mu[i]) if limit is None else (math.floor(-limit), math.ceil(limit))
        start, end = (dilation[i] * (tap + side * radius) for tap, side in ((low, -1), (high, 1)))
        return axis.window(size, stride[i], start, end, middle=0)

    return _windows(call, 2, change, sums_channels=True)


def _taps(mu: Tensor) -> Sequence[int]:
    """First and last tap along one axis; the position itself where there are no units."""
    return (int(mu.min().floor()), int(mu.max().ceil())) if mu.numel() else (0, 0)


_RULES: dict[str, Callable[[Call], Axes]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d": _pool,
    "_adaptive_avg_pool2d adaptive_max_pool2d": _adaptive_pool,
    "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d": _pad,
    "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d": _upsample,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "dau_conv2d": _dau,
}
WINDOWS = {name: rule for names, rule in _RULES.items() for name in names.split()}
"""{operation: rule}."""
