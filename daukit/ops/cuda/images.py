"""Kernels on whole images: the blur, its adjoint, and the output gradient at stride 1."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from daukit.ops.cuda.call import BlurTile, Call, Prepared
from daukit.ops.cuda.launcher import Launch

THREADS = 256
"""Threads of a block of the kernels that give each thread an element."""


G, MU, SIGMA = 0, 1, 2
"""Rows of taps: the Gaussian, and its derivatives by displacement and by sigma."""

Pairs = tuple[tuple[int, int], ...]
"""Rows of taps, along y and along x, of each map."""


def blur(call: Call, images: Tensor, sigma: Tensor, pairs: Pairs) -> Tensor:
    """Blur images (N, C, H, W) with pairs of rows of taps into phase images (maps, N * phases, C, h, w).

    Without a blur float32 images of an undilated layer are their own map.
    """
    if _is_identity(call) and len(pairs) == 1:
        return images.detach().contiguous()[None]
    channels = images.shape[1]
    blurred = call.new_images(channels, len(pairs))
    call.queue(
        ("blur", channels), lambda: _blur_launch(call, "dau_blur", channels),
        ctypes.c_int(channels), images.detach().contiguous(), sigma, blurred, ctypes.c_int(len(pairs)),
        ctypes.c_int(sum((y | x << 2) << 4 * i for i, (y, x) in enumerate(pairs))),
    )  # fmt: skip
    return blurred


def blur_adjoint(call: Call, blurred: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Blur phase images (N * phases, C, h, w) back into images (N, C, H, W) of ``dtype``: themselves without a blur."""
    if _is_identity(call):
        return blurred
    geo = call.geo
    images = torch.empty(geo.batch, geo.in_channels, *geo.in_size, dtype=dtype, device=call.device)
    call.queue(
        "blur adjoint", lambda: _blur_launch(call, "dau_blur_adjoint", geo.in_channels),
        ctypes.c_int(geo.in_channels), blurred, sigma, images,
    )  # fmt: skip
    return images


def unstrided(call: Call, grad_output: Tensor) -> Tensor:
    """The output gradient as float32 phase images, zero where a strided layer has no output."""
    geo = call.geo
    grad_output = grad_output.detach().contiguous()
    if call.storage == 0 and geo.stride == geo.dilation == (1, 1):
        return grad_output
    errors = call.new_images(geo.out_channels)

    def launch() -> Prepared:
        grid, macros = (-(-errors.numel() // THREADS),), {"DAU_STORAGE": call.storage}
        return Launch.of("unstride.cu", "dau_unstride", grid, (THREADS,), macros), call.sizes()

    call.queue("unstride", launch, grad_output, errors)
    return errors


def _is_identity(call: Call) -> bool:
    """True where phase images are the images themselves, unblurred. Otherwise a blur of radius 0 rearranges them."""
    return call.geo.radius == 0 and call.storage == 0 and call.phases == 1


def _blur_launch(call: Call, kernel: str, channels: int) -> Prepared:
    """One group of threads for each tile of each phase image."""
    height, width = call.phase_size
    tile = BlurTile.of(call.geo.radius, max(height, width))
    assert tile is not None, "wider blurs are not supported, so the dense path takes them"
    tiles = call.geo.batch * call.phases * channels * -(-height // tile.size) * -(-width // tile.size)
    macros = {"DAU_STORAGE": call.storage, **tile.macros()}
    grid, block = (-(-tiles // tile.planes),), (tile.threads,)
    return Launch.of("blur.cu", kernel, grid, block, macros, tile.shared_bytes), call.sizes()
