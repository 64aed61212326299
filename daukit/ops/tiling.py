"""Images cut into tiles for transforms of a good size, so that memory stays bounded and sizes have small primes only.

A tile of outputs is read from a *window* of the image that the filters' taps make wider (overlap-save); its adjoint
adds windows where they overlap. An image of one tile needs no margin on both sides: what a window reads beyond one end
are the zeros beyond the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.ops.filters import Chunk, Window
from daukit.ops.geometry import Geometry

LARGEST = 128
"""Side of a transform beyond which images are cut, unless the taps alone need more."""

BLOCK_BYTES = 2**30
"""Budget of the spectra of one block of images. One row of tiles of one image is the least that a block can hold."""


class Block(NamedTuple):
    """Images, and rows of their tiles, that are transformed together."""

    first_image: int
    last_image: int
    first_row: int
    last_row: int

    @property
    def images(self) -> slice:
        """Of the batch."""
        return slice(self.first_image, self.last_image)

    @property
    def rows(self) -> slice:
        """Of the tiles."""
        return slice(self.first_row, self.last_row)


@dataclass(frozen=True)
class Tiling:
    """Tiles of images and their transforms, per axis (y, x).

    Attributes:
        size: of a transform, and of a window.
        step: outputs of a tile.
        count: tiles of an image.
        origin: pixel that a window starts with, from the first output of its tile.
    """

    size: tuple[int, int]
    step: tuple[int, int]
    count: tuple[int, int]
    origin: tuple[int, int]

    @classmethod
    def of(cls, window: Window, geo: Geometry) -> Tiling:
        """The tiling with the fewest operations for images of a layer of stride and dilation 1."""
        return _best(window, geo.in_size, geo.batch)

    @property
    def _columns(self) -> int:
        """Frequencies along x that the spectrum of real numbers needs."""
        return self.size[1] // 2 + 1

    @property
    def frequencies(self) -> int:
        """Complex numbers of the spectrum of one window."""
        return self.size[0] * self._columns

    def spectrum_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the spectrum of one window."""
        return 2 * dtype.itemsize * self.frequencies

    def blocks(self, geo: Geometry, dtype: torch.dtype) -> Iterator[Block]:
        """Blocks within the budget that cover all images."""
        row = (geo.in_channels + geo.out_channels) * self.count[1] * self.spectrum_bytes(dtype)
        rows = max(1, min(self.count[0], BLOCK_BYTES // row))
        images = max(1, BLOCK_BYTES // (row * self.count[0])) if rows == self.count[0] else 1
        for first in range(0, geo.batch, images):
            for top in range(0, self.count[0], rows):
                yield Block(first, min(first + images, geo.batch), top, min(top + rows, self.count[0]))

    def windows(self, images: Tensor) -> Tensor:
        """Windows of images (N, C, H, W), zero outside: a view (N, C, tiles y, tiles x, *size) of a padded copy."""
        (height, width), (y0, x0) = images.shape[2:], self.origin
        rows, columns = self._padded
        padded = F.pad(images, (-x0, columns + x0 - width, -y0, rows + y0 - height))
        return padded.unfold(2, self.size[0], self.step[0]).unfold(3, self.size[1], self.step[1])

    def tiles(self, errors: Tensor) -> Tensor:
        """Tiles of errors (N, C, H, W): (N, C, tiles y, tiles x, *step)."""
        (height, width), (sy, sx), (ny, nx) = errors.shape[2:], self.step, self.count
        padded = F.pad(errors, (0, nx * sx - width, 0, ny * sy - height))
        return padded.unfold(2, sy, sy).unfold(3, sx, sx)

    def put_tiles(self, images: Tensor, output: Tensor, block: Block) -> None:
        """Write the tiles of a block's transforms (n, rows, tiles x, C, *size) into images (N, C, H, W)."""
        (sy, sx), (height, width) = self.step, output.shape[2:]
        tiles = images[..., :sy, :sx].permute(0, 3, 1, 4, 2, 5)  # (n, C, rows, sy, tiles x, sx)
        top = block.first_row * sy
        bottom = min(block.last_row * sy, height)
        whole = tiles.reshape(*tiles.shape[:2], tiles.shape[2] * sy, tiles.shape[4] * sx)
        output[block.images, :, top:bottom] = whole[:, :, : bottom - top, :width]

    def new_padded(self, like: Tensor, channels: int) -> Tensor:
        """Zeros into which windows of as many images of ``channels`` can be added."""
        return like.new_zeros(like.shape[0], channels, *self._padded)

    def add_windows(self, windows: Tensor, padded: Tensor, block: Block) -> None:
        """Add a block's windows (n, rows, tiles x, C, *size) where they lie."""
        into = padded[block.images]
        for i in range(windows.shape[1]):
            y = (block.first_row + i) * self.step[0]
            for j in range(windows.shape[2]):
                x = j * self.step[1]
                into[:, :, y : y + self.size[0], x : x + self.size[1]] += windows[:, i, j]

    def crop(self, padded: Tensor, geo: Geometry) -> Tensor:
        """The images inside ``padded``."""
        (y0, x0), (height, width) = self.origin, geo.in_size
        return F.pad(padded, (x0, width - x0 - padded.shape[3], y0, height - y0 - padded.shape[2]))

    @property
    def _padded(self) -> tuple[int, int]:
        y, x = ((n - 1) * step + size for n, step, size in zip(self.count, self.step, self.size, strict=True))
        return y, x

    def of_images(self, parts: Tensor, groups: int) -> Tensor:
        """Of tiles or windows (n, C, rows, columns, y, x): (frequencies, groups, n * rows * columns, C / groups)."""
        spectra: Tensor = torch.fft.rfft2(parts, s=self.size, norm="ortho")
        n, channels, rows, columns = spectra.shape[:4]
        split = spectra.reshape(n, groups, channels // groups, rows, columns, *spectra.shape[4:])
        return split.permute(5, 6, 1, 0, 3, 4, 2).reshape(-1, groups, n * rows * columns, channels // groups)

    def images(self, spectra: Tensor, block: Block) -> Tensor:
        """Back from what ``of_images`` gives, for the tiles of a block: (n, rows, columns, C, *size)."""
        groups, channels = spectra.shape[1], spectra.shape[3]
        n, rows = block.last_image - block.first_image, block.last_row - block.first_row
        shape = (self.size[0], self._columns, groups, n, rows, self.count[1], channels)
        split = spectra.reshape(shape).permute(3, 4, 5, 2, 6, 0, 1)
        joined = split.reshape(n, rows, self.count[1], groups * channels, self.size[0], self._columns)
        images: Tensor = torch.fft.irfft2(joined, s=self.size, norm="ortho")
        return images

    def of_filters(self, kernel: Tensor, chunk: Chunk) -> Tensor:
        """Spectra of a chunk's filters (O, C / groups, y, x), with which images are correlated: (frequencies, groups,
        C / groups, O / groups).
        """
        rows, columns = self._waves(chunk.window, kernel)
        along_x = torch.complex(kernel @ columns.real.mT, kernel @ columns.imag.mT)  # (O, C / groups, y, frequencies)
        spectra = rows @ along_x
        split = spectra.reshape(chunk.groups, -1, *spectra.shape[1:])
        return split.permute(3, 4, 0, 2, 1).reshape(-1, chunk.groups, *split.shape[2:0:-1])

    def taps_of(self, spectra: Tensor, chunk: Chunk) -> Tensor:
        """The taps of a chunk's window of what has these spectra (frequencies, groups, O / groups, C / groups): (O, C /
        groups, y, x).
        """
        rows, columns = self._waves(chunk.window, spectra.real)
        # The half of the spectrum that is not there is the conjugate of the other.
        columns[1 : (self.size[1] + 1) // 2] *= 2
        split = spectra.reshape(self.size[0], self._columns, *spectra.shape[1:]).permute(2, 3, 4, 0, 1)
        along_y = rows.mT @ split.flatten(0, 1)  # (O, C / groups, y, frequencies)
        return along_y.real @ columns.real - along_y.imag @ columns.imag

    def _waves(self, window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
        """What displacements to a window's taps multiply spectra with, along y and x: (frequencies, taps) each."""
        y = _wave(self.size[0], self.size[0], window.first[0] - self.origin[0], window.size[0], like)
        x = _wave(self.size[1], self._columns, window.first[1] - self.origin[1], window.size[1], like)
        return y, x


def _wave(period: int, frequencies: int, first: int, taps: int, like: Tensor) -> Tensor:
    """``exp(2 pi i f m / period)``, (frequencies, taps): in float64, and the phase reduced as whole numbers."""
    f = torch.arange(frequencies, device=like.device)
    m = torch.arange(first, first + taps, device=like.device)
    angle = (f[:, None] * m % period).double() * (2 * math.pi / period)
    return torch.complex(angle.cos().to(like.dtype), angle.sin().to(like.dtype))


@functools.lru_cache(maxsize=1024)
def _best(window: Window, image: tuple[int, int], batch: int) -> Tiling:
    ways = [
        [(size, step, -(-image[axis] // step), origin) for size, step, origin in _ways(axis, window, image)]
        for axis in (0, 1)
    ]

    def operations(y: tuple[int, ...], x: tuple[int, ...]) -> float:
        # A window's frequencies are one complex product for every pair of channels; a filter's cost one for each row.
        windows = batch * y[2] * x[2]
        return y[0] * x[0] * (windows + window.size[0])

    y, x = min(((y, x) for y in ways[0] for x in ways[1]), key=lambda pair: operations(*pair))
    return Tiling(*((one, other) for one, other in zip(y, x, strict=True)))


def _ways(axis: int, window: Window, image: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Transforms along an axis: (size, outputs of a tile, origin)."""
    (first, last), pixels = window.range(axis), image[axis]
    whole = good_size(pixels + max(-first, last, 0))
    yield whole, pixels, 0
    margin = window.size[axis] - 1
    for size in range(2, LARGEST + 1, 2):
        if good_size(size) == size and margin < size < whole and size - margin < pixels:
            yield size, size - margin, first


def good_size(least: int) -> int:
    """The least even number from ``least`` on without prime factors above 7: what fast transforms are fast for."""
    size = max(2, least + least % 2)
    while not _is_smooth(size):
        size += 2
    return size


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1
