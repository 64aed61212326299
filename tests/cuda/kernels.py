"""Instances of the kernels, and their launch on the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from emulator.build import SOURCES
from emulator.library import Library, Report
from torch import Tensor


class Sizes(ctypes.Structure):
    """``struct Sizes`` of cuda/sizes.cuh."""

    names = (
        *("batch", "in_channels", "out_channels", "groups", "height", "width", "out_height", "out_width"),
        *("stride_y", "stride_x", "dilation_y", "dilation_x", "phase_height", "phase_width"),
        *("units", "units_per_pair", "radius", "halo", "splits"),
    )
    _fields_ = [(name, ctypes.c_int) for name in names]  # noqa: RUF012 -- ctypes wants a list


def divide_up(a: int, b: int) -> int:
    """Divide and round up."""
    return -(-a // b)


MARGIN = 4096
"""Elements before and after what is given to kernels: a wrong store ends there, not in another's memory."""


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory that holds NaN, so that what a kernel forgets to write is seen in the result."""
    memory = torch.full([prod(shape) + 2 * MARGIN], torch.nan, dtype=dtype)
    return memory[MARGIN:-MARGIN].reshape(shape)


@dataclass(frozen=True)
class Tile:
    """An instance of the aggregation kernels.

    Attributes:
        rows, columns: of a lane's tile.
        strip: tiles side by side in one window.
        warps: of a block.
        halo: displacements up to it are staged, in taps.
        channels: staged at once.
        stages: in shared memory.
    """

    rows: int = 8
    columns: int = 8
    strip: int = 4
    warps: int = 4
    halo: int = 4
    channels: int = 2
    stages: int = 2

    def macros(self) -> dict[str, int]:
        names = ("TILE_ROWS", "TILE_COLUMNS", "STRIP_TILES", "WARPS", "HALO", "STAGE_CHANNELS", "STAGES")
        values = (self.rows, self.columns, self.strip, self.warps, self.halo, self.channels, self.stages)
        return {f"DAU_{name}": value for name, value in zip(names, values, strict=True)}

    def blocks(self, images: int, height: int, width: int) -> int:
        """Blocks that cover images of this size, 32 tiles each."""
        strips = images * divide_up(height, self.rows) * divide_up(width, self.strip * self.columns)
        return divide_up(strips, 32 // self.strip)

    def shared_bytes(self, step: tuple[int, int] = (1, 1)) -> int:
        """Dynamic shared memory, for outputs that lie ``step`` pixels apart."""
        return 4 * self.stages * self.channels * self.plane(step)

    def plane(self, step: tuple[int, int]) -> int:
        """Words of one staged channel, by the search of cuda/window.cuh.

        Raises:
            ValueError: no distance of the strips puts all tiles into different banks.
        """
        rows = (self.rows - 1) * step[0] + 1 + 2 * self.halo
        columns = (self.strip * self.columns - 1) * step[1] + 1 + 2 * self.halo
        size, strips = rows * divide_up(columns, 8) * 8, 32 // self.strip
        inner = strips
        while inner:
            for a in range(32):
                for b in range(1 if inner == strips else 32):
                    near = size + a
                    at = [g % inner * near + g // inner * (inner * near + b) for g in range(strips)]
                    banks = {(o + t * self.columns * step[1]) % 32 for o in at for t in range(self.strip)}
                    if len(banks) == strips * self.strip:
                        return at[-1] + size
            inner //= 2
        raise ValueError(f"{self} has no layout without bank conflicts")


@dataclass
class Kernels:
    """How to run.

    Attributes:
        tile: instance of the aggregation kernels.
        splits: blocks that share the channels of a sum.
        order: of the threads: 0 ascending, 1 descending, otherwise random with this seed.
        checked: whether every access is looked at; the reports come to ``reports``.
        sources: folders of other sources than cuda/, by the name of the kernel's file.
        macros: further ones, for all kernels.
        far_blocks: the most of a far unit's kernels.
        strips: that a block of the backward goes through.
    """

    tile: Tile = field(default_factory=Tile)
    splits: int = 1
    order: int = 0
    checked: bool = False
    sources: Mapping[str, Path] = field(default_factory=dict)
    macros: Mapping[str, int] = field(default_factory=dict)
    far_blocks: int = 7
    strips: int = 1
    reports: list[tuple[str, Report]] = field(default_factory=list)

    def library(self, name: str, **macros: int) -> Library:
        """The library of one source."""
        return Library(name, {**macros, **self.macros}, self.checked, self.sources.get(name, SOURCES))

    def launch(
        self,
        library: Library,
        kernel: str,
        arguments: Sequence[Any],
        *,
        grid: Sequence[int],
        block: Sequence[int],
        shared: int = 0,
        fills: Sequence[Tensor] = (),
    ) -> None:
        """Launch; in a checked run only the arguments may be touched, and those that it ``fills`` hold nothing yet."""
        if self.checked:
            tensors = {f"argument {i}": a for i, a in enumerate(arguments) if isinstance(a, Tensor)}
            library.watch(tensors, [name for name, a in tensors.items() if any(a is f for f in fills)])
        library.launch(kernel, grid, block, shared, arguments, self.order)
        if self.checked:
            self.reports.append((kernel, library.report()))
