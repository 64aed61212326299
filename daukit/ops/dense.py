"""The operator as ordinary convolutions: the bilinear taps of all units are materialised as one dense kernel.

Exact on any device torch runs on, and fast enough to train with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from daukit.ops.by_filters import ByFilters
from daukit.ops.filters import Chunk, Filters, UnitGradients
from daukit.ops.geometry import Geometry
from daukit.ops.units import UnitList


class Dense(ByFilters):
    """One dense convolution per chunk of output channels."""

    name = "dense"

    def __init__(self, memory_format: torch.memory_format = torch.preserve_format):
        self._format = memory_format  # in which tensor cores may be faster

    def outputs(self, blurred: Tensor, units: UnitList, geo: Geometry, compute: torch.dtype) -> Tensor:
        """As ``ByFilters.outputs``."""
        output = blurred.new_zeros(geo.batch, geo.out_channels, *geo.out_size)
        for chunk in Filters(units, geo).chunks():
            # An explicitly padded copy: oneDNN's unpadded forward convolution is a third faster than its padded one.
            padded = chunk.window.pad(blurred[:, chunk.inputs], geo, (0, 0)).to(compute, memory_format=self._format)
            kernel = chunk.kernel(units).to(compute, memory_format=self._format)
            output[:, chunk.outputs] = F.conv2d(
                padded, kernel, stride=geo.stride, dilation=geo.dilation, groups=chunk.groups
            )
        return output

    def add_gradients(
        self,
        grad_output: Tensor,
        maps: Tensor | None,
        units: UnitList,
        geo: Geometry,
        grads: UnitGradients,
        grad_blurred: Tensor | None,
        compute: torch.dtype,
    ) -> None:
        """As ``ByFilters.add_gradients``."""
        for chunk in Filters(units, geo, slopes=grads.by_slopes).chunks():
            error = grad_output[:, chunk.outputs].contiguous().to(compute, memory_format=self._format)
            if grad_blurred is not None:
                kernel = chunk.kernel(units).to(compute, memory_format=self._format)
                grad_blurred[:, chunk.inputs] += _grad_image(chunk, error, kernel, geo)
            if maps is not None:
                grads.add(chunk, self._tap_dots(chunk, maps, error, geo))

    def _tap_dots(self, chunk: Chunk, maps: Tensor, error: Tensor, geo: Geometry) -> Tensor:
        """Dot products of ``error`` with every map displaced by every tap: (maps, *kernel shape)."""
        count, batch, _, height, width = maps.shape
        grouped = maps[:, :, chunk.inputs].reshape(count, batch, chunk.groups, chunk.inputs_per_group, height, width)
        # One convolution for all maps: they become further input channels of their group.
        image = grouped.permute(1, 2, 0, 3, 4, 5).reshape(batch, -1, height, width)
        padding = chunk.window.padding(geo)
        flat = (error.shape[1], count * chunk.inputs_per_group, *chunk.window.size)
        padded = chunk.window.pad(image, geo, padding).to(error.dtype, memory_format=self._format)
        dots: Tensor = conv2d_weight(padded, flat, error, geo.stride, padding, geo.dilation, chunk.groups)
        shape = (error.shape[1], count, chunk.inputs_per_group, *chunk.window.size)
        return dots.to(maps.dtype).reshape(shape).transpose(0, 1)


def _grad_image(chunk: Chunk, error: Tensor, kernel: Tensor, geo: Geometry) -> Tensor:
    """Adjoint of the chunk's convolution: (N, inputs, H, W)."""
    padding = chunk.window.padding(geo)
    height, width = (geo.in_size[axis] + sum(chunk.window.edges(axis, geo)) - 2 * padding[axis] for axis in (0, 1))
    shape = (geo.batch, chunk.inputs.stop - chunk.inputs.start, height, width)
    grad = conv2d_input(shape, kernel, error, geo.stride, padding, geo.dilation, chunk.groups)
    return chunk.window.unpad(grad, geo, padding)
