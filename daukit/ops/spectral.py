"""The operator in the frequency domain, where a displacement is a factor, whatever its size and however many there are.

Each frequency is one product of matrices: images by input channels, times input by output channels. Its cost does not
depend on the units, and nearly all of it is such products, which GPUs' matrix units are made for (docs/math.md,
section 9). Any device, and any dtype that torch can transform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.ops.by_filters import ByFilters
from daukit.ops.filters import Filters, UnitGradients
from daukit.ops.geometry import Geometry
from daukit.ops.phases import phases, unstride
from daukit.ops.tiling import Block, Tiling
from daukit.ops.units import UnitList


class Spectral(ByFilters):
    """One product of matrices a frequency; strided layers by keeping what they ask for, dilated ones by phases."""

    name = "spectral"

    def outputs(self, blurred: Tensor, units: UnitList, geo: Geometry, compute: torch.dtype) -> Tensor:
        """As ``ByFilters.outputs``."""
        full = blurred.new_zeros(geo.batch, geo.out_channels, *geo.in_size)
        for phase in phases(geo):
            images = phase.take(blurred)
            phase.put(_outputs(images, units, _plain(geo, images), compute), full)
        (sy, sx) = geo.stride
        return full[:, :, ::sy, ::sx]

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
        errors = unstride(grad_output, geo).to(units.weight.dtype)
        for phase in phases(geo):
            error, images = phase.take(errors), [phase.take(one) for one in maps] if maps is not None else []
            plain = _plain(geo, error)
            grad = _gradients(error, images, units, plain, grads, grad_blurred is not None, compute)
            if grad is not None and grad_blurred is not None:
                phase.put(grad, grad_blurred)


def _plain(geo: Geometry, images: Tensor) -> Geometry:
    """The layer on phase images: without a blur, a stride and a dilation."""
    batch, _, height, width = images.shape
    once = (1, 1)
    return Geometry(batch, geo.in_channels, geo.out_channels, geo.groups, (height, width), once, once, radius=0)


def _outputs(images: Tensor, units: UnitList, geo: Geometry, compute: torch.dtype) -> Tensor:
    """What the units read of images (N, C, H, W), summed: (N, O, H, W)."""
    output = images.new_zeros(geo.batch, geo.out_channels, *geo.in_size)
    filters = Filters(units, geo)
    if filters.window is None:
        return output
    tiling = Tiling.of(filters.window, geo)
    windows = _Spectra(tiling.windows(images), tiling)
    for chunk in filters.chunks(tiling.spectrum_bytes(images.dtype)):
        filter_spectra = _factor(tiling.of_filters(chunk.kernel(units), chunk), compute)
        for block in tiling.blocks(geo, images.dtype):
            product = _product(windows.of(block, chunk.inputs, chunk.groups), filter_spectra)
            tiling.put_tiles(tiling.images(product, block), output[:, chunk.outputs], block)
    return output


def _gradients(
    errors: Tensor,
    maps: list[Tensor],
    units: UnitList,
    geo: Geometry,
    grads: UnitGradients,
    needs_image: bool,
    compute: torch.dtype,
) -> Tensor | None:
    """Add to ``grads`` what errors (N, O, H, W) give, and return the gradient of the images where it is asked for."""
    filters = Filters(units, geo, slopes=grads.by_slopes)
    if filters.window is None:
        return None
    tiling, dtype = Tiling.of(filters.window, geo), errors.dtype
    tiles, windows = _Spectra(tiling.tiles(errors), tiling), [_Spectra(tiling.windows(one), tiling) for one in maps]
    padded = tiling.new_padded(errors, geo.in_channels) if needs_image else None
    for chunk in filters.chunks(tiling.spectrum_bytes(dtype)):
        adjoint = _factor(tiling.of_filters(chunk.kernel(units), chunk).mH, compute) if needs_image else None
        dots = errors.new_zeros(len(windows), chunk.out_channels, chunk.inputs_per_group, *chunk.window.size)
        for block in tiling.blocks(geo, dtype):
            error = tiles.of(block, chunk.outputs, chunk.groups)
            if padded is not None and adjoint is not None:
                image = tiling.images(_product(error, adjoint), block)
                tiling.add_windows(image, padded[:, chunk.inputs], block)
            for dot, spectra in zip(dots, windows, strict=True):
                image = spectra.of(block, chunk.inputs, chunk.groups)
                dot += tiling.taps_of(_product(error.mH, _factor(image, compute)), chunk)
        if windows:
            grads.add(chunk, dots)
    return None if padded is None else tiling.crop(padded, geo)


class _Spectra:
    """Spectra of the tiles or windows of images, block by block; those of a single block are worked out once."""

    def __init__(self, parts: Tensor, tiling: Tiling):
        self._parts, self._tiling = parts, tiling
        self._key: tuple[Block, int, int] | None = None
        self._kept: Tensor

    def of(self, block: Block, channels: slice, groups: int) -> Tensor:
        """(frequencies, groups, tiles, channels of a group), complex."""
        key = block, channels.start, channels.stop
        if key != self._key:
            parts = self._parts[block.images, channels, block.rows]
            self._key, self._kept = key, self._tiling.of_images(parts, groups)
        return self._kept


def _factor(spectra: Tensor, compute: torch.dtype) -> Tensor:
    """The right factor of ``_product``: complex matrices, in half precision real ones of twice their size."""
    if compute not in (torch.float16, torch.bfloat16):
        return spectra
    upper, lower = torch.cat([spectra.real, spectra.imag], -1), torch.cat([-spectra.imag, spectra.real], -1)
    return torch.cat([upper, lower], -2).to(compute)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Products of complex matrices with what ``_factor`` made of others."""
    if right.is_complex():
        return left @ right
    rows = torch.cat([left.real, left.imag], -1).to(right.dtype)
    real, imag = (rows @ right).to(left.real.dtype).chunk(2, -1)
    return torch.complex(real.contiguous(), imag.contiguous())
