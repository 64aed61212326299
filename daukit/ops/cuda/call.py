"""One call of the operator as its kernels see it: sizes, limits, flat units, and the launches of tiles.

The kernels and their arguments are those of ``cuda/``; every launch depends only on shapes and the static limit of
displacements.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from daukit.ops.cuda.chooser import GRID_LIMIT, WARPS, Choice, Gpu, Loop, Work, channel_blocks, choose
from daukit.ops.cuda.launcher import LAUNCHERS, Argument, Launch
from daukit.ops.geometry import Geometry

STORAGES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""``DAU_STORAGE`` of the dtypes that images may have; parameters and sums are float32."""

INDEX_LIMIT = 2**31
"""Elements of one image, and units, that the kernels can number."""

CHANNEL_MARGIN = 4096
"""Elements by which an index may run beyond a channel's plane, in the rows of a window that lie outside the image."""

BLUR_TILES = (32, 16, 8)
BLUR_OUTPUTS = 8
"""Pixels that a thread of the blur filters."""

BLUR_BYTES = 48 * 1024


class Sizes(ctypes.Structure):
    """``struct Sizes`` of ``cuda/sizes.cuh``."""

    names = (
        "batch in_channels out_channels groups height width out_height out_width stride_y stride_x dilation_y "
        "dilation_x phase_height phase_width units units_per_pair radius halo splits"
    ).split()
    _fields_ = [(name, ctypes.c_int) for name in names]  # noqa: RUF012 -- ctypes wants a list


@dataclass(frozen=True)
class Units:
    """Flat float32 parameters of all units, ordered by pair, as the kernels read them.

    Attributes:
        weight: ``(units,)``.
        mu: ``(2, units)``.
        unit_ptr: ``(pairs + 1,)`` int32 of ragged units, or None.
        per_pair: units of every pair of a dense layer; 0 for ragged units.
    """

    weight: Tensor
    mu: Tensor
    unit_ptr: Tensor | None
    per_pair: int

    @property
    def count(self) -> int:
        """Number of units."""
        return self.weight.numel()


class BlurTile(NamedTuple):
    """An instance of the blur: the side of its tiles, the radius of its taps, and the planes of a block."""

    size: int
    radius: int
    planes: int

    @classmethod
    def of(cls, radius: int, size: int = BLUR_TILES[0]) -> BlurTile | None:
        """The one for images up to ``size`` pixels that reads and filters least, or None where no window fits."""
        fits = [tile for side in BLUR_TILES if (tile := cls(side, radius, 1)).shared_bytes <= BLUR_BYTES]
        if not fits:
            return None
        best = min(fits, key=lambda tile: -(-size // tile.size) * (tile.size + radius))
        planes = (one for one in (16, 4, 1) if one * best.size**2 <= BLUR_TILES[0] ** 2)
        return next(tile for one in planes if (tile := best._replace(planes=one)).shared_bytes <= BLUR_BYTES)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.planes * self.size**2 // BLUR_OUTPUTS

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: pixels, rows of them that are filtered along x, and three rows of taps."""
        width = self.size + 2 * self.radius
        return 4 * (self.planes * width * ((width | 1) + (self.size | 1)) + 3 * (2 * self.radius + 1))

    def macros(self) -> dict[str, int]:
        """Preprocessor definitions."""
        return {"DAU_BLUR_TILE": self.size, "DAU_BLUR_RADIUS": self.radius, "DAU_BLUR_PLANES": self.planes}


def check_sizes(geo: Geometry, units: int) -> None:
    """Raise where the kernels' 32-bit numbers do not reach.

    Raises:
        ValueError: one image of all channels, or the units, or the groups are too many.
    """
    dy, dx = geo.dilation
    height, width = phase_size(geo)
    plane = height * width * dy * dx
    for name, channels in (("in_channels", geo.in_channels), ("out_channels", geo.out_channels)):
        if channels * (plane + CHANNEL_MARGIN) >= INDEX_LIMIT:
            raise ValueError(
                f"the CUDA kernels number the elements of an image with 31 bits: {name} ({channels}) * (height * "
                f"width + {CHANNEL_MARGIN}) = {channels * (plane + CHANNEL_MARGIN)} must be below {INDEX_LIMIT}; "
                'split the channels or the image, or use daukit.backend("dense")'
            )
    if units + 1 >= INDEX_LIMIT:
        raise ValueError(f"the CUDA kernels number units with 31 bits, got {units} units; split the output channels")
    # A block has a warp for each of at most 16 channels of one group, in the backward for each of the inputs'.
    blocks = geo.groups * -(-max(geo.in_channels, geo.out_channels) // geo.groups // max(WARPS))
    if blocks > GRID_LIMIT:
        raise ValueError(
            f"the CUDA kernels take {GRID_LIMIT} blocks of {max(WARPS)} channels of a group, got {blocks} with "
            f'{geo.groups} groups; use daukit.backend("dense")'
        )


def phase_size(geo: Geometry) -> tuple[int, int]:
    """Size of the phases that a dilated layer's image is cut into."""
    (height, width), (dy, dx) = geo.in_size, geo.dilation
    return -(-height // dy), -(-width // dx)


Prepared = tuple[Launch, Sizes]
"""A kernel's launch and its first argument."""


class Plan:
    """Launches of calls of one geometry, one number of units, one dtype and one GPU: made once, as host time counts."""

    def __init__(self) -> None:
        self.launches: dict[Hashable, Prepared] = {}
        self.choices: dict[tuple[Loop, bool], Choice] = {}


@functools.lru_cache(maxsize=1024)
def plan_of(geo: Geometry, units: int, per_pair: int, dtype: torch.dtype, gpu: Gpu, rank: int) -> Plan:
    """The plan of such calls, which begins empty."""
    return Plan()


class Call:
    """Sizes of one call and the launches that depend on them."""

    def __init__(self, geo: Geometry, units: Units, image: Tensor, rank: int = 0):
        self.geo, self.units, self.device, self._rank = geo, units, image.device, rank
        self.storage = STORAGES[image.dtype]
        self.phases = math.prod(geo.dilation)
        self.phase_size = phase_size(geo)
        self._launcher = LAUNCHERS[image.device.type]
        self.gpu = self._launcher.gpu(image.device)
        self._plan = plan_of(geo, units.count, units.per_pair, image.dtype, self.gpu, rank)

    def queue(self, key: Hashable, make: Callable[[], Prepared], *arguments: Argument) -> None:
        """Queue a kernel on the call's device.

        Args:
            key: of the launch, among those of such calls.
            make: makes it and the kernel's first argument, when it is first asked for.
            arguments: the kernel's others.
        """
        prepared = self._plan.launches.get(key)
        if prepared is None:
            prepared = self._plan.launches[key] = make()
        launch, sizes = prepared
        self._launcher.launch(self.device, launch, sizes, *arguments)

    def choose(self, loop: Loop, transposed: bool) -> Choice:
        """The launch of an aggregation: from inputs to outputs, or ``transposed`` from outputs to inputs."""
        key = loop, transposed
        if key not in self._plan.choices:
            self._plan.choices[key] = choose(loop, self.work(transposed), self.gpu, self._rank)
        return self._plan.choices[key]

    def work(self, transposed: bool) -> Work:
        """Sizes of an aggregation."""
        return self._backward_work() if transposed else self._forward_work()

    def _forward_work(self) -> Work:
        geo = self.geo
        # Outputs whose first pixels lie in the same phase are an image of their own, of a smaller stride.
        cycles = [d // math.gcd(s, d) for s, d in zip(geo.stride, geo.dilation, strict=True)]
        height, width = (-(-size // cycle) for size, cycle in zip(geo.out_size, cycles, strict=True))
        stride_y, stride_x = (s // math.gcd(s, d) for s, d in zip(geo.stride, geo.dilation, strict=True))
        return Work(
            images=geo.batch * math.prod(cycles),
            summed=geo.in_channels // geo.groups,
            results=geo.out_channels // geo.groups,
            groups=geo.groups,
            height=height,
            width=width,
            units=self._per_pair(),
            stride=(stride_y, stride_x),
            limit=self._limit(),
        )

    def _backward_work(self) -> Work:
        geo, (height, width) = self.geo, self.phase_size
        return Work(
            images=geo.batch * self.phases,
            summed=geo.out_channels // geo.groups,
            results=geo.in_channels // geo.groups,
            groups=geo.groups,
            height=height,
            width=width,
            units=self._per_pair(),
            stride=(1, 1),
            limit=self._limit(),
        )

    def _per_pair(self) -> float:
        return self.units.count * self.geo.groups / (self.geo.in_channels * self.geo.out_channels)

    def _limit(self) -> int:
        """No displacement beyond the image reads anything."""
        return min(self.geo.limit, max(self.phase_size))

    def new_images(self, channels: int, *leading: int) -> Tensor:
        """Uninitialised float32 phase images: (*leading, N * phases, channels, height, width)."""
        shape = (*leading, self.geo.batch * self.phases, channels, *self.phase_size)
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def sizes(self, halo: int = 0, splits: int = 1) -> Sizes:
        """The first argument of every kernel."""
        return self._sizes(self.geo, halo, splits)

    def transposed_sizes(self, halo: int, splits: int) -> Sizes:
        """Those of an undilated layer that computes the gradient of phase images from errors on them."""
        geo, once = self.geo, (1, 1)
        channels = geo.out_channels, geo.in_channels
        transposed = Geometry(geo.batch * self.phases, *channels, geo.groups, self.phase_size, once, once, radius=0)
        return self._sizes(transposed, halo, splits)

    def _sizes(self, geo: Geometry, halo: int, splits: int) -> Sizes:
        (height, width), (out_height, out_width) = geo.in_size, geo.out_size
        return Sizes(
            batch=geo.batch,
            in_channels=geo.in_channels,
            out_channels=geo.out_channels,
            groups=geo.groups,
            height=height,
            width=width,
            out_height=out_height,
            out_width=out_width,
            stride_y=geo.stride[0],
            stride_x=geo.stride[1],
            dilation_y=geo.dilation[0],
            dilation_x=geo.dilation[1],
            phase_height=self.phase_size[0],
            phase_width=self.phase_size[1],
            units=self.units.count,
            units_per_pair=self.units.per_pair,
            radius=geo.radius,
            halo=halo,
            splits=splits,
        )

    def tiled(
        self, file: str, kernel: str, work: Work, choice: Choice, blocks: int | None = None, **macros: int
    ) -> Launch:
        """The launch of a kernel of tiles on every strip, by as many ``blocks`` as there are strips or by fewer."""
        tile = choice.tile
        blocks = tile.blocks(work.images, work.height, work.width) if blocks is None else blocks
        grid = (blocks, channel_blocks(work, tile.warps), choice.splits)
        return Launch.of(file, kernel, grid, (32 * tile.warps,), {**tile.macros(), **macros}, tile.shared_bytes)
