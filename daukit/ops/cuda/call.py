"""One call of the operator as its kernels see it: sizes, limits, flat units, and how each kernel is launched.

The kernels and their arguments are those of ``cuda/``; every launch depends on shapes and the static ``reach`` only.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.ops.cuda.chooser import Choice, Loop, Work, choose
from daukit.ops.cuda.launcher import LAUNCHERS, Argument, Launch, Launcher, Source, pointer
from daukit.ops.geometry import Geometry

STORAGES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""``DAU_STORAGE`` of the dtypes that images may have; parameters and sums are float32."""

INDEX_LIMIT = 2**31
"""Elements of one image, and units, that the kernels can number."""

CHANNEL_MARGIN = 4096
"""Elements by which an index may run beyond a channel's plane, in the rows of a window that lie outside the image."""

GRID_LIMIT = 65535
"""Blocks along the second axis of a grid."""

BLUR_TILES = (32, 16, 8)
BLUR_BYTES = 48 * 1024


class _Sizes(ctypes.Structure):
    names = (
        "batch in_channels out_channels groups height width out_height out_width stride_y stride_x dilation_y "
        "dilation_x phase_height phase_width units units_per_pair radius halo splits"
    ).split()
    _fields_ = [(name, ctypes.c_int) for name in names]  # noqa: RUF012 -- ctypes wants a list


@dataclass(frozen=True)
class Units:
    """Flat float32 parameters of all units, ordered by pair, as the kernels read them."""

    weight: Tensor
    mu: Tensor
    unit_ptr: Tensor | None
    per_pair: int

    @classmethod
    def of(cls, weight: Tensor, mu: Tensor, unit_ptr: Tensor | None) -> Units:
        """From the operator's arguments; ``per_pair`` is 0 for ragged units."""
        per_pair = weight.shape[2] if unit_ptr is None else 0
        flat = weight.detach().contiguous().reshape(-1), mu.detach().contiguous().reshape(2, -1)
        return cls(*flat, None if unit_ptr is None else unit_ptr.contiguous(), per_pair)

    @property
    def count(self) -> int:
        """Number of units."""
        return self.weight.numel()

    def transposed_ptr(self, geo: Geometry) -> Tensor | None:
        """First unit of every pair in the order (input channel, output channel of its group), or None when dense."""
        if self.unit_ptr is None:
            return None
        groups = geo.groups
        counts = self.unit_ptr.diff().view(groups, geo.out_channels // groups, geo.in_channels // groups)
        ends = counts.transpose(1, 2).reshape(-1).cumsum(0, dtype=torch.int32)
        return torch.cat([ends.new_zeros(1), ends])


def blur_tile(radius: int, size: int = BLUR_TILES[0]) -> int | None:
    """Side of the blur's tiles for images up to ``size`` pixels: the largest useful one whose window fits, or None."""
    fits = [b for b in BLUR_TILES if blur_bytes(b, radius) <= BLUR_BYTES]
    return min(fits, key=lambda b: (-(-size // b) * b, -b)) if fits else None


def blur_bytes(tile: int, radius: int) -> int:
    """Dynamic shared memory of the blur."""
    return 4 * (tile + 2 * radius) * (2 * tile + 2 * radius)


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
    if geo.groups > GRID_LIMIT:
        raise ValueError(f'the CUDA kernels take {GRID_LIMIT} groups, got {geo.groups}; use daukit.backend("dense")')


def phase_size(geo: Geometry) -> tuple[int, int]:
    """Size of the phases that a dilated layer's image is cut into."""
    (height, width), (dy, dx) = geo.in_size, geo.dilation
    return -(-height // dy), -(-width // dx)


class Call:
    """Sizes of one call and the launches that depend on them."""

    def __init__(self, geo: Geometry, units: Units, image: Tensor):
        self.geo, self.units, self.device = geo, units, image.device
        self.storage = STORAGES[image.dtype]
        self.phases = math.prod(geo.dilation)
        self.phase_size = phase_size(geo)
        self.launcher: Launcher = LAUNCHERS[image.device.type]

    def choose(self, loop: Loop, transposed: bool) -> Choice:
        """The launch of an aggregation: from inputs to outputs, or ``transposed`` from outputs to inputs."""
        return choose(loop, self.work(transposed), self.launcher.gpu(self.device))

    def work(self, transposed: bool) -> Work:
        """Sizes of an aggregation."""
        return self._backward_work() if transposed else self._forward_work()

    def _forward_work(self) -> Work:
        geo = self.geo
        # Outputs whose first pixels lie in the same phase are an image of their own, of a smaller stride.
        cycles = [d // math.gcd(s, d) for s, d in zip(geo.stride, geo.dilation, strict=True)]
        height, width = (-(-size // cycle) for size, cycle in zip(geo.out_size, cycles, strict=True))
        stride = tuple(s // math.gcd(s, d) for s, d in zip(geo.stride, geo.dilation, strict=True))
        inputs, outputs = geo.in_channels // geo.groups, geo.out_channels // geo.groups
        images, reach = geo.batch * math.prod(cycles), self._reach()
        return Work(
            images, inputs, outputs, geo.groups, height, width, self._per_pair(), (stride[0], stride[1]), reach
        )  # fmt: skip

    def _backward_work(self) -> Work:
        geo = self.geo
        inputs, outputs = geo.in_channels // geo.groups, geo.out_channels // geo.groups
        images = geo.batch * self.phases
        return Work(images, outputs, inputs, geo.groups, *self.phase_size, self._per_pair(), (1, 1), self._reach())

    def _per_pair(self) -> float:
        return self.units.count * self.geo.groups / (self.geo.in_channels * self.geo.out_channels)

    def _reach(self) -> int:
        """No displacement beyond the image reads anything."""
        return min(self.geo.reach, max(self.phase_size))

    def new_images(self, channels: int, *leading: int) -> Tensor:
        """Uninitialised float32 phase images: (*leading, N * phases, channels, height, width)."""
        shape = (*leading, self.geo.batch * self.phases, channels, *self.phase_size)
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def sizes(self, halo: int = 0, splits: int = 1) -> _Sizes:
        """The first argument of every kernel."""
        geo = self.geo
        return _Sizes(
            geo.batch, geo.in_channels, geo.out_channels, geo.groups, *geo.in_size, *geo.out_size, *geo.stride,
            *geo.dilation, *self.phase_size, self.units.count, self.units.per_pair, geo.radius, halo, splits,
        )  # fmt: skip

    def transposed_sizes(self, halo: int, splits: int) -> _Sizes:
        """Those of an undilated layer that computes the gradient of phase images from errors on them."""
        geo, images = self.geo, self.geo.batch * self.phases
        return _Sizes(
            images, geo.out_channels, geo.in_channels, geo.groups, *self.phase_size, *self.phase_size, 1, 1, 1, 1,
            *self.phase_size, self.units.count, self.units.per_pair, 0, halo, splits,
        )  # fmt: skip

    def launch(
        self,
        file: str,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        *arguments: Argument | Tensor | None,
        macros: Mapping[str, int] | None = None,
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel. Tensors become pointers; they must be contiguous and on the call's device."""
        source = Source(file, tuple(sorted((macros or {}).items())))
        values = [pointer(a) if a is None or isinstance(a, Tensor) else a for a in arguments]
        self.launcher.launch(Launch(source, kernel, _axes(grid), _axes(block), shared_bytes), values, self.device)

    def launch_tiled(
        self,
        file: str,
        kernel: str,
        work: Work,
        choice: Choice,
        sizes: _Sizes,
        *arguments: Tensor | None,
        **macros: int,
    ) -> None:
        """Queue a kernel of tiles on every strip."""
        tile = choice.tile
        blocks = tile.blocks(work.images, work.height, work.width)
        grid = (blocks, work.groups * math.ceil(work.results / tile.warps), choice.splits)
        self.launch(
            file, kernel, grid, (32 * tile.warps,), sizes, *arguments,
            macros={**tile.macros(), **macros}, shared_bytes=tile.shared_bytes,
        )  # fmt: skip


def _axes(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
