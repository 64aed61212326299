"""Bounds on the CUDA kernels' speed, counted from their machine code; ``make gpu-figures`` prints them.

No GPU is needed, and none was timed. Per unit and output pixel of a warp (32 unit-pixels) a multiprocessor needs

- ``FMA * 32 / lanes`` clocks for its multiply-adds, of which it does 128 a clock, 64 on sm_75 and sm_80,
- a clock for every wavefront of shared memory: a load, a shuffle or a staging copy without bank conflicts,
- a quarter of a clock for every instruction,

all divided by the pixels of a lane. Staging is shared by the K units that read a channel. The largest of the three is
the bound; *effective* is a multiprocessor's peak at four multiply-adds a unit-pixel over it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from sass import Instruction, Kernel, count, fma, kernels

from daukit.ops.cuda.chooser import Gpu
from daukit.ops.cuda.compiler import compile_kernel
from daukit.ops.cuda.tiles import Tile

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
PRINTED = (80, 90, 100, 120)


class Instance(NamedTuple):
    """A compiled form of the forward's or the backward's main kernel, and one of its loops over units."""

    name: str
    file: str
    kernel: str
    tile: Tile
    macros: tuple[tuple[str, int], ...] = ()
    whole: bool = False
    """The loop over units on whole pixels; else that over all others."""

    def compile(self, architecture: int) -> Kernel:
        """Its machine code."""
        return compiled(self.file, (*self.tile.macros().items(), *self.macros), architecture)[self.kernel]

    def loop(self, kernel: Kernel) -> tuple[Instruction, ...]:
        """Its loop in the machine code."""
        whole, others = kernel.unit_loops()
        return tuple(kernel.code[i] for i in (whole if self.whole else others))


def forward(name: str, tile: Tile, **macros: int) -> Instance:
    """A forward instance."""
    stride = {"DAU_STRIDE_Y": tile.stride[0], "DAU_STRIDE_X": tile.stride[1]}
    return Instance(name, "forward.cu", "dau_forward", tile, tuple({**stride, **macros}.items()))


def backward(name: str, tile: Tile, exact: int = 0, mu: int = 1) -> Instance:
    """A backward instance."""
    return Instance(name, "backward.cu", "dau_backward", tile, (("DAU_EXACT", exact), ("DAU_MU", mu)))


BILINEAR = (
    forward("forward 8x8", Tile(8, 8, 4, 4, 16)),
    forward("forward 8x4", Tile(8, 4, 8, 4, 16, min_blocks=2)),
    forward("forward 7x7", Tile(7, 7, 4, 4, 16)),
    forward("forward 7x7, two a strip", Tile(7, 7, 2, 4, 16)),
    forward("forward 4x4", Tile(4, 4, 8, 4, 16, min_blocks=2)),
    forward("forward 8x8, bfloat16", Tile(8, 8, 4, 4, 16), DAU_STORAGE=2),
    forward("forward 8x8, halo 8", Tile(8, 8, 4, 8, 16, stage_channels=1)),
    forward("forward 4x4, stride 2", Tile(4, 4, 4, 4, 16, (2, 2))),
    backward("backward 8x4", Tile(8, 4, 8, 4, 8)),
    backward("backward 4x4", Tile(4, 4, 8, 4, 16)),
    backward("backward exact 8x8", Tile(8, 8, 4, 4, 8), exact=1),
    backward("backward exact 8x4", Tile(8, 4, 8, 4, 8), exact=1),
    backward("backward, mu frozen 8x8", Tile(8, 8, 4, 4, 8), mu=0),
    backward("backward, mu frozen 8x4", Tile(8, 4, 8, 4, 16), mu=0),
)
WHOLE = (
    *("forward 8x8", "forward 8x4", "forward 4x4, stride 2", "backward 8x4", "backward exact 8x8"),
    *("backward exact 8x4", "backward, mu frozen 8x8", "backward, mu frozen 8x4"),
)
INSTANCES = (
    *BILINEAR,
    *(one._replace(name=f"{one.name}, whole", whole=True) for one in BILINEAR if one.name in WHOLE),
)


@cache
def compiled(file: str, macros: tuple[tuple[str, int], ...], architecture: int) -> dict[str, Kernel]:
    """All kernels of a compiled source."""
    return kernels(compile_kernel(file, dict(macros), architecture))


@dataclass(frozen=True)
class Figures:
    """Counts of one kernel for one architecture, per unit and per staged channel of a warp."""

    instance: Instance
    architecture: int
    registers: int
    spills: int
    fma: int
    loads: int
    wavefronts: int
    instructions: int
    staging_wavefronts: float
    staging_instructions: float

    @property
    def pixels(self) -> int:
        """Outputs of a lane."""
        return self.instance.tile.rows * self.instance.tile.columns

    @property
    def others(self) -> int:
        """Instructions of the unit loop that are neither multiply-adds nor loads from shared memory."""
        return self.instructions - self.fma - self.loads

    def clocks(self, units: float | None = None) -> float:
        """The bound in clocks per 32 unit-pixels; with staging for ``units`` units a channel, or of the loop alone."""
        lanes = Gpu(self.architecture, 0, 0, 0).lanes
        share = 0.0 if units is None else 1 / units
        wavefronts = self.wavefronts + share * self.staging_wavefronts
        instructions = self.instructions + share * self.staging_instructions
        return max(self.fma * 32 / lanes, wavefronts, instructions / 4) / self.pixels

    def effective(self, units: float | None = None) -> float:
        """Share of the peak that the bound leaves."""
        return 128 / Gpu(self.architecture, 0, 0, 0).lanes / self.clocks(units)


def figures(instance: Instance, architecture: int) -> Figures:
    """Count one kernel."""
    kernel = instance.compile(architecture)
    loop, staging, channels = instance.loop(kernel), kernel.around_unit_loops(), instance.tile.stage_channels
    inside, around = count(loop), count(staging)
    copies = around["LDGSTS"] or around["LDG"] + around["STS"]  # sm_75 copies through registers
    return Figures(
        instance,
        architecture,
        kernel.registers,
        kernel.spills,
        fma(loop),
        inside["LDS"],
        # One load of the unit's record passes through the same pipeline.
        inside["LDS"] + inside["SHFL"] + inside["LDG"],
        len(loop),
        copies / channels,
        len(staging) / channels,
    )


def rows() -> Iterator[str]:
    """Rows of a Markdown table."""
    yield "| kernel | sm | regs | spills | FMA | wavefronts | slots | other | staging | clocks | effective K=2; 4 |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for instance in INSTANCES:
        for architecture in PRINTED:
            f = figures(instance, architecture)
            per_pixel = " | ".join(f"{n / f.pixels:.3f}" for n in (f.fma, f.wavefronts, f.instructions))
            share = "; ".join(f"{f.effective(units):.0%}" for units in (2, 4))
            yield (
                f"| {instance.name} | {architecture} | {f.registers} | {f.spills} | {per_pixel} | {f.others} | "
                f"{f.staging_instructions:.0f} | {f.clocks():.2f} | {share} |"
            )


if __name__ == "__main__":
    print(*rows(), sep="\n")
