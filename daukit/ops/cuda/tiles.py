"""Tiles of outputs and the shared memory their windows take: the arithmetic of ``cuda/window.cuh``, repeated.

A lane of a warp owns a tile of ``rows`` x ``columns`` outputs. ``strip_tiles`` tiles side by side are a strip, whose
window, ``halo`` pixels wider on each side, lies once in shared memory. A warp owns 32 tiles: ``strips`` strips.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

BANKS = 32
ROW_THREADS = 8
"""Threads that copy one row of a window."""

MASK_BITS = 64
"""Copies a thread may make of one channel: each has a bit that says whether it lies inside the image."""


@dataclass(frozen=True)
class Tile:
    """A kernel's instance: what a lane, a strip and a block own.

    Attributes:
        rows, columns: outputs of a lane.
        strip_tiles: tiles of a strip, a power of two.
        halo: displacements up to this many pixels find their taps in the window; the others are *far*.
        warps: warps of a block, each with a channel of its own over the same tiles.
        stride: (y, x) between outputs in the window.
        stage_channels: channels staged at once.
        min_blocks: blocks that must fit into the registers of a multiprocessor.
    """

    rows: int
    columns: int
    strip_tiles: int
    halo: int
    warps: int
    stride: tuple[int, int] = (1, 1)
    stage_channels: int = 2
    min_blocks: int = 1

    STAGES = 2  # one is copied while the other is read

    @property
    def strips(self) -> int:
        """Strips of a warp."""
        return BANKS // self.strip_tiles

    @property
    def window_rows(self) -> int:
        """Rows of a strip's window."""
        return (self.rows - 1) * self.stride[0] + 1 + 2 * self.halo

    @property
    def row_copies(self) -> int:
        """Copies that each of the threads of a row makes."""
        columns = (self.strip_tiles * self.columns - 1) * self.stride[1] + 1 + 2 * self.halo
        return -(-columns // ROW_THREADS)

    @property
    def window_words(self) -> int:
        """Words of a strip's window."""
        return self.window_rows * self.row_copies * ROW_THREADS

    @property
    def plane(self) -> int | None:
        """Words of one staged channel, or None where no padding between strips avoids bank conflicts."""
        return _plane(self.strips, self.strip_tiles, self.columns * self.stride[1], self.window_words)

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block; the tile must have a ``plane``."""
        return 4 * self.STAGES * self.stage_channels * (self.plane or 0)

    @property
    def passes(self) -> int:
        """Rows that a thread copies a part of, for each channel."""
        return -(-self.strips * self.window_rows // (self.warps * BANKS // ROW_THREADS))

    @property
    def compiles(self) -> bool:
        """True if the kernel's own static assertions hold."""
        return self.passes * self.row_copies <= MASK_BITS and self.plane is not None

    def blocks(self, images: int, height: int, width: int) -> int:
        """Blocks that cover ``images`` of ``height`` x ``width`` outputs, for one channel a warp."""
        strips = images * -(-height // self.rows) * -(-width // (self.strip_tiles * self.columns))
        return -(-strips // self.strips)

    def macros(self) -> dict[str, int]:
        """Preprocessor definitions of the instance; its shared memory is checked by the compiler."""
        return {
            "DAU_TILE_ROWS": self.rows,
            "DAU_TILE_COLUMNS": self.columns,
            "DAU_STRIP_TILES": self.strip_tiles,
            "DAU_HALO": self.halo,
            "DAU_STAGE_CHANNELS": self.stage_channels,
            "DAU_STAGES": self.STAGES,
            "DAU_WARPS": self.warps,
            "DAU_MIN_BLOCKS": self.min_blocks,
            "DAU_SHARED_BYTES": self.shared_bytes,
        }


@functools.cache
def _plane(strips: int, strip_tiles: int, tile_step: int, window_words: int) -> int | None:
    """Words of all strips, whose distances are padded until the 32 tile origins lie in 32 banks."""
    inner = strips
    while inner >= 1:
        for near_padding in range(BANKS):
            for far_padding in range(1 if inner == strips else BANKS):
                near = window_words + near_padding
                far = inner * near + far_padding
                banks = {
                    (strip % inner * near + strip // inner * far + tile * tile_step) % BANKS
                    for strip in range(strips)
                    for tile in range(strip_tiles)
                }
                if len(banks) == BANKS:
                    return (strips - 1) % inner * near + (strips - 1) // inner * far + window_words
        inner //= 2
    return None
