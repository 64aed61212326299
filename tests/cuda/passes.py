"""The operator made of kernels: which are launched, in what order, on what memory. It knows no mathematics."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch
from kernels import Kernels, Sizes, divide_up, empty
from torch import Tensor

from daukit.ops.geometry import Geometry

STORAGE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
BLUR_TILE, BLUR_PLANES = 8, 3


@dataclass
class Pass:
    """A layer, and how its kernels are run. Images may be float32, float16 or bfloat16, everything else is float32."""

    kernels: Kernels
    geo: Geometry
    weight: Tensor
    mu: Tensor
    sigma: Tensor
    unit_ptr: Tensor | None

    def __post_init__(self) -> None:
        geo, kernels = self.geo, self.kernels
        self.units = (self.weight.contiguous().reshape(-1), self.mu.contiguous().reshape(2, -1), self.unit_ptr)
        self.count = self.weight.numel()
        self.step = tuple(s // gcd(s, d) for s, d in zip(geo.stride, geo.dilation, strict=True))
        self.phase = tuple(divide_up(size, d) for size, d in zip(geo.in_size, geo.dilation, strict=True))
        self.images = geo.batch * geo.dilation[0] * geo.dilation[1]
        per_pair = self.weight.shape[2] if self.unit_ptr is None else 0
        self.sizes = Sizes(
            *(geo.batch, geo.in_channels, geo.out_channels, geo.groups),
            *(*geo.in_size, *geo.out_size, *geo.stride, *geo.dilation, *self.phase),
            *(self.count, per_pair, geo.radius, kernels.tile.halo, kernels.splits),
        )

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """As ``reference.forward``; the output has the dtype of ``x``."""
        run, geo, tile = self.kernels, self.geo, self.kernels.tile
        blurred = self._blur(x, [("gaussian", "gaussian")])[0]
        steps = {"DAU_STRIDE_Y": self.step[0], "DAU_STRIDE_X": self.step[1]}
        library = run.library("forward", **tile.macros(), **steps, DAU_STORAGE=STORAGE[x.dtype])
        far, units = torch.zeros(1, dtype=torch.int32), empty(self.count + 1, 4)
        blocks = [divide_up(self.count + 1, 128)]
        arguments = [self.sizes, *self.units, units, far]
        run.launch(library, "dau_plan_forward", arguments, grid=blocks, block=[128], fills=[units])

        output = empty(geo.batch, geo.out_channels, *geo.out_size, dtype=x.dtype)
        partial = empty(run.splits, *output.shape) if run.splits > 1 else None
        classes = [d * step // s for d, step, s in zip(geo.dilation, self.step, geo.stride, strict=True)]
        sizes = [divide_up(size, count) for size, count in zip(geo.out_size, classes, strict=True)]
        grid = [tile.blocks(geo.batch * classes[0] * classes[1], *sizes), *self._channel_blocks(geo.out_channels)]
        run.launch(
            library,
            "dau_forward",
            [self.sizes, blurred, units, self.unit_ptr, bias, output, partial],
            grid=grid,
            block=[32 * tile.warps],
            shared=tile.shared_bytes(self.step),
            fills=[output if partial is None else partial],
        )
        if partial is not None:
            self._sum_splits(partial, bias, output)
        library = run.library("far", DAU_STORAGE=STORAGE[x.dtype])
        arguments = [self.sizes, far, blurred, *self.units, output]
        run.launch(library, "dau_far_forward", arguments, grid=[self._pixel_blocks(output)], block=[256])
        return output

    def grad_input(self, error: Tensor) -> Tensor:
        """The input's gradient alone, by the forward kernel on transposed lists."""
        run, geo, tile = self.kernels, self.geo, self.kernels.tile
        errors, transposed = self._unstrided(error), self._transposed_ptr()
        library = run.library("forward", **tile.macros())
        far, units = torch.zeros(1, dtype=torch.int32), empty(self.count + 1, 4)
        arguments = [self.sizes, *self.units, transposed, units, far]
        blocks = [divide_up(self.count + 1, 128)]
        run.launch(library, "dau_plan_adjoint", arguments, grid=blocks, block=[128], fills=[units])

        grad_blurred = empty(self.images, geo.in_channels, *self.phase)
        partial = empty(run.splits, *grad_blurred.shape) if run.splits > 1 else None
        channels = (self.images, geo.out_channels, geo.in_channels, geo.groups)
        layout = (*self.phase, *self.phase, 1, 1, 1, 1, *self.phase)
        sizes = Sizes(*channels, *layout, self.count, self.sizes.units_per_pair, 0, tile.halo, run.splits)
        run.launch(
            library,
            "dau_forward",
            [sizes, errors, units, transposed, None, grad_blurred, partial],
            grid=[tile.blocks(self.images, *self.phase), *self._channel_blocks(geo.in_channels)],
            block=[32 * tile.warps],
            shared=tile.shared_bytes(),
            fills=[grad_blurred if partial is None else partial],
        )
        if partial is not None:
            self._sum_splits(partial, None, grad_blurred)
        arguments = [self.sizes, far, errors, *self.units, grad_blurred]
        blocks = [self._pixel_blocks(grad_blurred)]
        run.launch(run.library("far", DAU_EXACT=0), "dau_far_backward", arguments, grid=blocks, block=[256])
        return self._blur_adjoint(grad_blurred, error.dtype)

    def backward(self, error: Tensor, x: Tensor, mu_gradient: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As ``reference.backward``; the input's gradient has the dtype of ``x``.

        With ``mu_gradient="none"`` nobody asks for the gradient of mu, and NaN is returned for it.
        """
        maps, grad_blurred, grad_weight, grad_mu = self.gradients(error, x, mu_gradient)
        grad_sigma = (grad_blurred.double() * maps[-2:].double().sum(0)).sum().float()
        grad_input = self._blur_adjoint(grad_blurred, x.dtype)
        return grad_input, grad_weight.reshape(self.weight.shape), grad_mu.reshape(self.mu.shape), grad_sigma

    def gradients(self, error: Tensor, x: Tensor, mu_gradient: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The maps of ``x``, and the gradients of its blurred images, of weight and of mu."""
        run, tile, exact = self.kernels, self.kernels.tile, mu_gradient == "exact"
        form = {"DAU_EXACT": int(exact), "DAU_MU": int(mu_gradient != "none")}
        slopes = [] if mu_gradient != "gaussian" else [("mu", "gaussian"), ("gaussian", "mu")]
        maps = self._blur(x, [("gaussian", "gaussian"), *slopes, ("sigma", "gaussian"), ("gaussian", "sigma")])
        needed = list(maps[:3]) if slopes else [maps[0], None, None]
        errors = self._unstrided(error)
        library = run.library("backward", **tile.macros(), **form)
        transposed = self._transposed_ptr()
        far, units = torch.zeros(1, dtype=torch.int32), empty(self.count + 1, 4)
        numbers = torch.full([self.count + 1], -(1 << 30), dtype=torch.int32)
        arguments = [self.sizes, *self.units, transposed, units, numbers, far]
        blocks = [divide_up(self.count + 1, 128)]
        run.launch(library, "dau_plan_backward", arguments, grid=blocks, block=[128], fills=[units, numbers])

        grad_blurred = empty(*maps.shape[1:])
        partial = empty(run.splits, *grad_blurred.shape) if run.splits > 1 else grad_blurred
        grid = [
            divide_up(tile.blocks(self.images, *self.phase), run.strips),
            *self._channel_blocks(self.geo.in_channels),
        ]
        sums = empty(grid[0], self.count, {"none": 1, "gaussian": 3, "exact": 4}[mu_gradient])
        several = {"DAU_SEVERAL_STRIPS": int(run.strips > 1)}
        if run.strips > 1:
            sums.zero_()
        run.launch(
            run.library("backward", **tile.macros(), **form, **several),
            "dau_backward",
            [self.sizes, errors, *needed, units, numbers, transposed, partial, sums],
            grid=grid,
            block=[32 * tile.warps],
            shared=tile.shared_bytes(),
            fills=[partial] if run.strips > 1 else [partial, sums],
        )
        if run.splits > 1:
            self._sum_splits(partial, None, grad_blurred)
        grad_weight, grad_mu = empty(self.count), empty(2, self.count)
        if self.count:
            arguments = [self.sizes, *self.units[:2], sums, grid[0], grad_weight, grad_mu]
            blocks, shared, fills = [divide_up(self.count, 32)], 4 * 32 * 8 * sums.shape[2], [grad_weight, grad_mu]
            fills = fills if form["DAU_MU"] else fills[:1]
            kernel = "dau_sum_gradients"
            run.launch(library, kernel, arguments, grid=blocks, block=[32, 8], shared=shared, fills=fills)
        self._add_far(far, errors, needed, grad_blurred, grad_weight, grad_mu, form)
        return maps, grad_blurred, grad_weight, grad_mu

    def _channel_blocks(self, channels: int) -> tuple[int, int]:
        groups = self.geo.groups
        return groups * divide_up(channels // groups, self.kernels.tile.warps), self.kernels.splits

    def _add_far(
        self,
        far: Tensor,
        errors: Tensor,
        maps: Sequence[Tensor | None],
        grad_blurred: Tensor,
        grad_weight: Tensor,
        grad_mu: Tensor,
        form: dict[str, int],
    ) -> None:
        run = self.kernels
        library = run.library("far", **form)
        arguments = [self.sizes, far, errors, *self.units, grad_blurred]
        run.launch(library, "dau_far_backward", arguments, grid=[self._pixel_blocks(grad_blurred)], block=[256])
        if self.count:
            arguments = [self.sizes, far, errors, *maps, *self.units, grad_weight, grad_mu]
            grid = [min(self.count, 16, run.far_blocks)]  # several units a block
            run.launch(library, "dau_far_gradients", arguments, grid=grid, block=[256], shared=4 * 4 * 8)

    def _blur(self, x: Tensor, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Maps of ``x``, each blurred by a pair of taps (along y, along x): (maps, images, C, h, w)."""
        rows = ("gaussian", "mu", "sigma")
        code = sum((rows.index(y) + 4 * rows.index(x)) * 16**i for i, (y, x) in enumerate(pairs))
        maps = empty(len(pairs), self.images, self.geo.in_channels, *self.phase)
        self._launch_blur("dau_blur", x.dtype, [x.contiguous(), self.sigma.float(), maps, len(pairs), code], maps)
        return maps

    def _blur_adjoint(self, grad_blurred: Tensor, dtype: torch.dtype) -> Tensor:
        output = empty(self.geo.batch, self.geo.in_channels, *self.geo.in_size, dtype=dtype)
        self._launch_blur("dau_blur_adjoint", dtype, [grad_blurred, self.sigma.float(), output], output)
        return output

    def _launch_blur(self, kernel: str, dtype: torch.dtype, arguments: Sequence[Tensor | int], fills: Tensor) -> None:
        radius, storage = self.geo.radius, STORAGE[dtype]
        macros = {"DAU_BLUR_TILE": BLUR_TILE, "DAU_BLUR_RADIUS": radius, "DAU_BLUR_PLANES": BLUR_PLANES}
        library = self.kernels.library("blur", **macros, DAU_STORAGE=storage)
        tiles = divide_up(self.phase[0], BLUR_TILE) * divide_up(self.phase[1], BLUR_TILE)
        width = BLUR_TILE + 2 * radius
        self.kernels.launch(
            library,
            kernel,
            [self.sizes, self.geo.in_channels, *arguments],
            grid=[divide_up(self.images * self.geo.in_channels * tiles, BLUR_PLANES)],
            block=[BLUR_PLANES * BLUR_TILE**2 // 8],
            shared=4 * (BLUR_PLANES * width * ((width | 1) + (BLUR_TILE | 1)) + 3 * (2 * radius + 1)),
            fills=[fills],
        )

    def _unstrided(self, error: Tensor) -> Tensor:
        errors = empty(self.images, self.geo.out_channels, *self.phase)
        library = self.kernels.library("unstride", DAU_STORAGE=STORAGE[error.dtype])
        arguments = [self.sizes, error.contiguous(), errors]
        grid = [divide_up(errors.numel(), 256)]
        self.kernels.launch(library, "dau_unstride", arguments, grid=grid, block=[256], fills=[errors])
        return errors

    def _sum_splits(self, partial: Tensor, bias: Tensor | None, output: Tensor) -> None:
        library = self.kernels.library("sums", DAU_STORAGE=STORAGE[output.dtype])
        count, plane = ctypes.c_longlong(output.numel()), output.shape[2] * output.shape[3]
        arguments = [self.sizes, partial, bias, output, count, plane, output.shape[1]]
        grid = [divide_up(output.numel(), 256)]
        self.kernels.launch(library, "dau_sum_splits", arguments, grid=grid, block=[256], fills=[output])

    def _transposed_ptr(self) -> Tensor | None:
        """Where each pair's units begin in the order (input channel, output channel of its group)."""
        if self.unit_ptr is None:
            return None
        library, transposed = self.kernels.library("pointers"), torch.full_like(self.unit_ptr, -1)
        self.kernels.launch(
            library,
            "dau_transpose_pointers",
            [self.sizes, self.unit_ptr, transposed],
            grid=[1],
            block=[1024],
            shared=8 * 1024,
            fills=[transposed],
        )
        return transposed

    def _pixel_blocks(self, images: Tensor) -> int:
        """Blocks of 256 threads that cover every plane by itself, or fewer."""
        covering = images.shape[0] * images.shape[1] * divide_up(images.shape[2] * images.shape[3], 256)
        return min(covering, self.kernels.far_blocks)
