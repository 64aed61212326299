"""Networks on images larger than memory allows: in overlapping tiles, with the same output as for the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from daukit.errors import DataError, in_words_of_caller
from daukit.models.alexnet import AlexNet
from daukit.models.blocks import upsample_to
from daukit.models.deeplab import DeepLab
from daukit.models.resnet import ResNet
from daukit.models.srn import SRNDeblur
from daukit.models.usercode import name_of
from daukit.receptive_field.axes import Axis, Place, grid_of
from daukit.receptive_field.forward import frozen
from daukit.receptive_field.layers import trace_layers

_SIDE = 192
"""Pixels along a side of the image that shows a network's arithmetic, and the coarsest grid that it can show."""

_ROUNDING = 1e-6
"""Pixels by which sums of fractions may be off."""


class _Tile(NamedTuple):
    """A tile along one axis: the pixels that the network gets, and the positions of its map there that count."""

    pixels: slice
    positions: slice


class Tiled(nn.Module):
    """A network that takes an image apart, runs on one tile after another and puts the maps together.

    Tiles overlap as the network's theoretical receptive field asks for, and begin at multiples of all its strides.
    Borders of tiles inside the image do not count, so zeros are read beyond the image's own borders alone. Only the
    maps inside the network are smaller; its output is in memory whole.

    Example:
        >>> network = nn.Conv2d(1, 2, 5, padding=2)
        >>> Tiled(network, (32, 32), channels=1)(torch.rand(1, 1, 100, 90)).shape
        torch.Size([1, 2, 100, 90])
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], channels: int) -> None:
        """Follow the network's arithmetic on a small image of zeros.

        Args:
            model: gives maps (N, classes or channels, h, w).
            size: (height, width) of the largest tile.
            channels: of the network's input.

        Raises:
            ValueError: a position of the output depends on the whole image, or on more than such a tile.
            NetworkError: the forward fails on the image of zeros.
        """
        super().__init__()
        self.model, self.size, self.channels = model, size, channels
        # The last thing that these do is to resize their scores to the image: done once, it asks for no certain size.
        self.inner = _Scores(model) if isinstance(model, AlexNet | ResNet | DeepLab) else model
        self._axes: list[dict[int, Axis | None]] = [{}, {}]  # of y and x, by the remainder of height and width
        self.grid, self.remainder = self._find_grid()
        fields = [self._axis(i, self.remainder) for i in (0, 1)]
        least = [math.ceil(axis.last - axis.first) + 2 * self.grid for axis in fields if axis is not None]
        if any(given < needed for given, needed in zip(size, least, strict=True)):
            raise ValueError(
                f"tiles of {size[0]}x{size[1]} pixels are smaller than what an output of {name_of(model)} depends on; "
                f"give at least {least[0]}x{least[1]}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """The map of the whole image (N, C, H, W), put together.

        Raises:
            DataError: the network resizes its maps of such an image by factors that depend on its size.
        """
        height, width = input.shape[2:]
        if height <= self.size[0] and width <= self.size[1]:
            whole: Tensor = self.model(input)
            return whole
        if isinstance(self.model, SRNDeblur):  # it would do the same to the whole image
            return self._put_together(self.model.whole_cells(input))[..., :height, :width]
        output = self._put_together(input)
        return output if self.inner is self.model else upsample_to(output, input)

    def _put_together(self, image: Tensor) -> Tensor:
        rows, columns = (list(self._tiles(i, image)) for i in (0, 1))
        strips = []
        for row in rows:
            maps = [self.inner(image[..., row.pixels, column.pixels]) for column in columns]
            parts = [map[..., row.positions, tile.positions] for map, tile in zip(maps, columns, strict=True)]
            strips.append(torch.cat(parts, dim=3))
            del maps, parts
        return torch.cat(strips, dim=2)

    def _tiles(self, i: int, image: Tensor) -> Iterator[_Tile]:
        """The tiles along y (i = 0) or x (i = 1), each as large as it may be."""
        length, size, grid = image.shape[2 + i], self.size[i], self.grid
        axis = self._axis(i, length % grid)
        if axis is None:
            ends = "one more than a multiple" if self.remainder else "multiples"
            raise DataError(
                f"an image of {image.shape[2]}x{image.shape[3]} pixels cannot be taken apart: {name_of(self.model)} "
                f"resizes its maps by factors that depend on the size; heights and widths must be {ends} of {grid}, "
                f"or drop {in_words_of_caller('tile', '--tile')}"
            )
        size -= (size - length) % grid  # so that maps of a tile are resized as those of the whole image
        first = 0  # position that comes next
        while True:
            start = max(0, math.floor((axis.scale * first + axis.first + _ROUNDING) / grid)) * grid
            before = round(start / axis.scale)
            if length - start <= size:
                yield _Tile(slice(start, length), slice(first - before, None))
                return
            end = math.floor((start + size - 1 - axis.last + _ROUNDING) / axis.scale) + 1
            yield _Tile(slice(start, start + size), slice(first - before, end - before))
            first = end

    def _find_grid(self) -> tuple[int, int]:
        """The common multiple of all strides, and a remainder of sizes with which maps fit each other: 0 or 1."""
        for remainder in (0, 1):
            y, x = self._trace(_SIDE + remainder, _SIDE + remainder)
            if y is None or x is None:
                continue
            grid = grid_of((y, x))
            if grid <= _SIDE and _SIDE % grid == 0:
                self.grid = grid
                if all(self._axis(i, remainder % grid) is not None for i in (0, 1)):
                    return grid, remainder % grid
        raise ValueError(
            f"{name_of(self.model)} takes no tiles: what it says of a pixel depends on the whole image or on where "
            "that ends, as with a global pool, attention, mirrored borders or a resize to another shape"
        )

    def _axis(self, i: int, remainder: int) -> Axis | None:
        """The arithmetic for sizes of such a remainder; None where it depends on the size."""
        if remainder not in self._axes[i]:
            small, large = (self._trace(side + remainder, side + remainder) for side in (_SIDE, _SIDE + self.grid))
            for known, one, other in zip(self._axes, small, large, strict=True):
                same = one is not None and other is not None and replace(one, size=0) == replace(other, size=0)
                known[remainder] = one if same else None
        return self._axes[i][remainder]

    def _trace(self, height: int, width: int) -> tuple[Axis | None, Axis | None]:
        """The axes of the output for an image of such a size; None of one whose positions see more than a part."""
        like = next(self.model.parameters(), torch.zeros(()))
        image = like.new_zeros((1, self.channels, height, width))
        with frozen(self.inner):
            axes = trace_layers(self.inner, {"": self.inner}, image).layers[""].axes
        if axes is None or [axis.place for axis in axes] != [Place(2), Place(3)]:
            return None, None
        y, x = (axis if axis.is_local else None for axis in axes)
        return y, x


class _Scores(nn.Module):
    """The scores of a network at its own stride."""

    def __init__(self, model: AlexNet | ResNet | DeepLab) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> Tensor:
        return self.model.scores(input)
