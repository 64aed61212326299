"""Choose the instance of a kernel to launch: tile, warps and split of the channels, by arithmetic on shapes alone.

A block's time is modelled from the instructions of its unit loop and the words it stages; what is chosen is the least
number of waves of blocks times that. The model's clocks are counted, not measured (docs/performance.md).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from daukit.errors import CudaError
from daukit.ops.cuda.tiles import BANKS, Tile

UTILISATION = 0.85
"""Share of the bound that a block is assumed to reach."""

BLOCK_OVERHEAD = 2000
"""Clocks that a block waits outside its loops: prologue, first copies, stores."""

SPLIT_CLOCKS = 64 / 16
"""Clocks per tile element and warp of writing a part of a sum that another pass adds up."""

RESERVED_BYTES = 1024
"""Shared memory that CUDA keeps for itself in every block."""

GRID_LIMIT = 65535
"""Blocks along the second axis of a grid."""

HALOS = (4, 8, 16)
"""Halos that kernels are compiled for. A displacement farther than the last one is summed from global memory."""

SPLITS = (1, 2, 4, 8)
WARPS = (16, 8, 4, 2, 1)

MOST_BLOCKS = 16
"""Blocks that a multiprocessor of every generation runs at once."""
STRIP_TILES = (32, 16, 8, 4, 2, 1)
STRIPS_OF_BLOCK = (16, 12, 8, 6, 4, 3, 2, 1)

LONGER = 1.03
"""How much longer a backward may take by the model so that its sums take less memory."""


class Gpu(NamedTuple):
    """The properties of a GPU that the choice depends on.

    Attributes:
        capability: compute capability times ten.
        multiprocessors: how many there are.
        block_bytes: shared memory that one block may have.
        multiprocessor_bytes: shared memory of a multiprocessor.
    """

    capability: int
    multiprocessors: int
    block_bytes: int
    multiprocessor_bytes: int

    @property
    def lanes(self) -> int:
        """Fused multiply-adds of float32 per clock and multiprocessor."""
        return 64 if self.capability in (75, 80) else 128


class Work(NamedTuple):
    """Sizes of one aggregation.

    Attributes:
        images: images, phases of a dilation counted as images of their own.
        summed: channels of a group that each result sums over.
        results: channels of a group that are computed.
        groups: groups.
        height, width: results per image.
        units: units of a pair, on average.
        stride: (y, x) between results, in pixels of the staged image.
        limit: largest expected displacement, in pixels.
    """

    images: int
    summed: int
    results: int
    groups: int
    height: int
    width: int
    units: float
    stride: tuple[int, int]
    limit: int


class Loop(NamedTuple):
    """Instructions of a kernel's unit loop: ``fma`` per output, ``others`` per unit besides loads and FMA."""

    fma: int
    others: int
    reductions: int
    """Shuffles per unit, which pass through shared memory's pipeline."""


FORWARD, BACKWARD, BACKWARD_EXACT = Loop(3, 10, 0), Loop(6, 41, 6), Loop(7, 41, 6)
BACKWARD_WEIGHTS = Loop(4, 24, 5)
"""The backward without a gradient for mu."""

WARPS_BY_REGISTERS = {
    FORWARD: {(8, 8): 16, (8, 4): 32, (7, 7): 26, (4, 4): 32, (2, 2): 32, (1, 1): 32},
    BACKWARD: {(8, 4): 8, (4, 4): 16, (2, 2): 16, (1, 1): 16},
    BACKWARD_EXACT: {(8, 8): 8, (8, 4): 8, (4, 4): 16, (2, 2): 16, (1, 1): 16},
    BACKWARD_WEIGHTS: {(8, 8): 8, (8, 4): 16, (4, 4): 16, (2, 2): 16, (1, 1): 16},
}
"""Tiles (rows, columns) of each kernel, and the warps a multiprocessor has registers for. Strides need small tiles."""

REGISTERS, MOST_REGISTERS = 65536, 256
"""Of a multiprocessor, and of a thread (one more than there are: the largest loops fit exactly)."""

SPARE_PASSES, SPARE_COPIES = 2, 20
"""Rows, and elements of a stage, whose copies by a thread these registers suffice for."""

REGISTERS_OF_PASS, REGISTERS_OF_COPY = 8, 1.25
"""What a thread needs for each row, and each element, more: as found by compiling 400 instances."""


class Choice(NamedTuple):
    """An instance, the parts its sum is split into, and what the model predicts.

    Attributes:
        tile: the instance.
        splits: parts of the channels, each summed by blocks of their own.
        clocks: predicted clocks of all of it.
        effective: share of a multiprocessor's peak, at 8 floating-point operations per unit and result in the forward.
    """

    tile: Tile
    splits: int
    clocks: float
    effective: float


@functools.lru_cache(maxsize=4096)
def choose(loop: Loop, work: Work, gpu: Gpu, rank: int = 0) -> Choice:
    """The launch that the model predicts to be fastest, or with the ``rank``-th best shape of a lane's tile.

    Raises:
        CudaError: no instance fits into the GPU's shared memory.
    """
    choices = _best_of_shapes(loop, work, gpu)
    return choices[min(rank, len(choices) - 1)]


def _best_of_shapes(loop: Loop, work: Work, gpu: Gpu) -> list[Choice]:
    """The best launch of each shape of a lane's tile, the best one first."""
    wanted = next((halo for halo in HALOS if halo >= work.limit), HALOS[-1])
    # A halo that does not fit is halved: the units beyond it are then summed from global memory.
    for halo in (h for h in reversed(HALOS) if h <= wanted):
        found = [_predict(loop, work, gpu, tile, splits) for tile, splits in _candidates(loop, work, gpu, halo)]
        if found:
            best: dict[tuple[int, int], Choice] = {}
            for choice in sorted(found, key=lambda choice: (choice.clocks, choice.tile.warps)):
                best.setdefault((choice.tile.rows, choice.tile.columns), choice)
            return list(best.values())
    raise CudaError(f"no CUDA kernel fits into {gpu.block_bytes} bytes of shared memory at stride {work.stride}")


def _candidates(loop: Loop, work: Work, gpu: Gpu, halo: int) -> Iterator[tuple[Tile, int]]:
    # Few warps copy slowly, but where groups are small, as in depthwise layers, others would have no channel.
    warps = [one for one in WARPS if one >= 4 or one >= work.results]
    warps = [one for one in warps if channel_blocks(work, one) <= GRID_LIMIT]
    stages = (1,) if work.summed == 1 else (2, 1)
    for (rows, columns), *sizes in itertools.product(WARPS_BY_REGISTERS[loop], STRIP_TILES, warps, stages):
        tile = Tile(rows, columns, sizes[0], halo, sizes[1], work.stride, sizes[2])
        blocks = min(MOST_BLOCKS, resident_warps(loop, tile) // tile.warps)
        if blocks and tile.compiles and tile.shared_bytes <= gpu.block_bytes:
            most = math.ceil(work.summed / tile.stage_channels)
            yield from ((replace(tile, min_blocks=blocks), splits) for splits in SPLITS if splits <= most)


def strips_of_block(choice: Choice, work: Work, gpu: Gpu) -> int:
    """How many strips of a backward one block may go through, one after another, in about the same time.

    The sums that blocks leave for another kernel to add up take so many times less memory.
    """
    blocks = choice.tile.blocks(work.images, work.height, work.width)
    others = channel_blocks(work, choice.tile.warps) * choice.splits
    at_once = gpu.multiprocessors * _resident(choice.tile, gpu)

    def waves(strips: int) -> int:
        return strips * math.ceil(math.ceil(blocks / strips) * others / at_once)

    return next(strips for strips in STRIPS_OF_BLOCK if waves(strips) <= LONGER * waves(1))


def channel_blocks(work: Work, warps: int) -> int:
    """Blocks that the channels of all groups need, one a warp."""
    return work.groups * math.ceil(work.results / warps)


def resident_warps(loop: Loop, tile: Tile) -> int:
    """Warps of a multiprocessor that have registers for a tile; 0 if a thread cannot have as many."""
    warps = WARPS_BY_REGISTERS[loop][tile.rows, tile.columns]
    warps = warps if tile.stride == (1, 1) else min(warps, 16)  # with a stride the loop needs more of them
    copies = tile.passes * tile.row_copies * tile.stage_channels
    further = REGISTERS_OF_PASS * max(0, tile.passes - SPARE_PASSES) + REGISTERS_OF_COPY * max(0, copies - SPARE_COPIES)
    registers = REGISTERS // (BANKS * warps) + math.ceil(further)
    return REGISTERS // (BANKS * registers) if registers <= MOST_REGISTERS else 0


def _predict(loop: Loop, work: Work, gpu: Gpu, tile: Tile, splits: int) -> Choice:
    pixels = tile.rows * tile.columns
    channels = channel_blocks(work, tile.warps)
    blocks = tile.blocks(work.images, work.height, work.width) * channels * splits
    busy = min(tile.warps, work.results)
    per_channel = busy * work.units * unit_clocks(loop, tile, gpu.lanes) + _staging_clocks(tile)
    block = math.ceil(work.summed / splits) * per_channel / UTILISATION
    if splits > 1:
        block += SPLIT_CLOCKS * pixels * busy
    # Blocks that share a multiprocessor share its pipelines, so a wave of several takes several times as long, but for
    # what they wait.
    resident = _resident(tile, gpu)
    waves = math.ceil(blocks / (gpu.multiprocessors * resident))
    clocks = waves * (block * min(resident, math.ceil(blocks / gpu.multiprocessors)) + BLOCK_OVERHEAD)
    results = work.images * work.groups * work.results * work.height * work.width
    ideal = results * work.summed * work.units / BANKS / gpu.multiprocessors * 128 / gpu.lanes
    return Choice(tile, splits, clocks, ideal / clocks)


def _resident(tile: Tile, gpu: Gpu) -> int:
    """Blocks that a multiprocessor runs at once."""
    return min(tile.min_blocks, gpu.multiprocessor_bytes // (tile.shared_bytes + RESERVED_BYTES)) or 1


def unit_clocks(loop: Loop, tile: Tile, lanes: int) -> float:
    """Clocks of a multiprocessor for one unit of one warp: the slowest of its FMA, shared memory and issue."""
    rows, columns = tile.rows, tile.columns
    fma = loop.fma * rows * columns + columns
    # Neighbouring outputs share what they read when they lie side by side; with a stride they share nothing.
    reads = _taps(rows, tile.stride[0]) * _taps(columns, tile.stride[1])
    if tile.stride != (1, 1):
        fma = (loop.fma + 1) * rows * columns
    shared = reads + 1 + loop.reductions
    return max(fma * BANKS / lanes, shared, (fma + reads + loop.others) / 4)


def _taps(outputs: int, stride: int) -> int:
    return outputs + 1 if stride == 1 else 2 * outputs


def _staging_clocks(tile: Tile) -> float:
    """Clocks in which the windows of one channel pass into shared memory."""
    return tile.strips * tile.window_words / BANKS
