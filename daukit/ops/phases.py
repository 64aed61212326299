"""Dilated and strided layers as layers of stride and dilation 1, the only ones that the C++ kernels know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.ops.geometry import Geometry
from daukit.ops.library import Layout, array, blur

MAX_DIRECT_REACH = 32
"""Pixels up to which dilated displacements are read directly, in one pass; beyond, phases cost less than passes."""


class Phase:
    """Pixels ``dilation`` apart, from starts ``[y0, y1) x [x0, x1)`` that all give images of the same size.

    A dilated layer reads, for every output pixel, only pixels of that pixel's own phase: each phase is an image of its
    own, on which the layer is undilated.
    """

    def __init__(self, geo: Geometry, rows: range, columns: range):
        self.dilation, self.rows, self.columns = geo.dilation, rows, columns
        self.whole = geo.dilation == (1, 1)

    def take(self, image: Tensor) -> Tensor:
        """The phases of ``image`` (N, C, H, W) as further images: (phases * N, C, h, w)."""
        return image if self.whole else torch.cat(self._views(image))

    def put(self, images: Tensor, image: Tensor) -> None:
        """Write phases back into the image."""
        for view, part in zip(self._views(image), images.split(image.shape[0]), strict=True):
            view.copy_(part)

    def _views(self, image: Tensor) -> list[Tensor]:
        dy, dx = self.dilation
        return [image[:, :, y::dy, x::dx] for y in self.rows for x in self.columns]


def phases(geo: Geometry) -> Iterator[Phase]:
    """Phases by size: along an axis the first ``size % dilation`` ones are a pixel longer than the others."""
    if geo.batch == 0 or 0 in geo.in_size:
        return
    runs = []
    for size, step in zip(geo.in_size, geo.dilation, strict=True):
        longer = size % step
        runs.append([r for r in (range(longer), range(longer, min(step, size))) if len(r)])
    yield from (Phase(geo, rows, columns) for rows in runs[0] for columns in runs[1])


def unstride(grad_output: Tensor, geo: Geometry) -> Tensor:
    """The output gradient at stride 1: zero where the strided layer has no output."""
    if geo.stride == (1, 1):
        return grad_output
    (sy, sx) = geo.stride
    full = grad_output.new_zeros(geo.batch, geo.out_channels, *geo.in_size)
    full[:, :, ::sy, ::sx] = grad_output
    return full


@dataclass(frozen=True)
class Direct:
    """A layer that the library runs as it is, on one image of the output's size a channel, or one a phase.

    So it runs what has neither stride nor dilation, and strided layers whose units all lie at whole pixels: their image
    falls into ``stride_y * stride_x`` phases, of which a unit reads one, and nothing is computed that the stride drops.
    Where all units read the first phase, the others are left out and the stride with them. Without a blur dilated
    displacements that are not far are pixels like others.

    Attributes:
        mu: displacements ``(2, units)`` in pixels of the image, or, with only the first phase left, of that phase.
        geo: of the layer.
        stride: (y, x) that is left: that of the layer, or (1, 1).
    """

    mu: Tensor
    geo: Geometry
    stride: tuple[int, int]

    @classmethod
    def of(cls, mu: Tensor, geo: Geometry) -> Direct | None:
        """From the layer's displacements ``(2, units)`` in dilated pixels; None for what must be done by phases."""
        if geo.dilation == (1, 1) and geo.stride == (1, 1):
            return cls(mu, geo, geo.stride)
        if (geo.radius and geo.dilation != (1, 1)) or not _are_whole(mu):
            return None
        mu = mu * mu.new_tensor(geo.dilation)[:, None]
        if geo.dilation != (1, 1) and mu.numel() and float(mu.abs().max()) > MAX_DIRECT_REACH:
            return None
        first = mu / mu.new_tensor(geo.stride)[:, None]
        return cls(first, geo, (1, 1)) if _are_whole(first) else cls(mu, geo, geo.stride)

    @property
    def _blurs_before(self) -> bool:
        return self.geo.radius > 0 and self.geo.stride != (1, 1)

    def arrange(self, image: Tensor, gaussian: Tensor) -> Tensor:
        """(N, C, H, W) to contiguous (N, C, ceil(H / stride), ceil(W / stride)), with phases to C * phases channels.

        The blur of a strided layer, which needs all pixels, is done here; else the library does it.
        """
        image = array(image)
        if self._blurs_before:
            image = blur(image, gaussian, gaussian)
        (sy, sx), (batch, channels, height, width) = self.geo.stride, image.shape
        if self.stride == (1, 1):
            return image[:, :, ::sy, ::sx].contiguous()
        rows, columns = self.geo.out_size
        image = torch.nn.functional.pad(image, (0, columns * sx - width, 0, rows * sy - height))
        parts = image.reshape(batch, channels, rows, sy, columns, sx).permute(0, 1, 3, 5, 2, 4)
        return parts.reshape(batch, channels * sy * sx, rows, columns).contiguous()

    def layout(self) -> Layout:
        """For the library."""
        geo, phases = self.geo, self.stride[0] * self.stride[1]
        radius = 0 if self._blurs_before else geo.radius
        shape = (geo.batch, geo.in_channels * phases, *geo.out_size)
        return Layout(shape, geo.in_channels, geo.out_channels, geo.groups, radius, self.stride)


def _are_whole(mu: Tensor) -> bool:
    return bool((mu == mu.round()).all())
