"""Images of more than 2^31 elements in all, of which no memory is taken but for those that are written."""

import mmap
import os
import subprocess
import sys
from math import prod

import kernels
import passes
import pytest
import torch
from emulator.build import NEEDS_COMPILER
from kernels import Kernels, Tile
from passes import Pass
from planting import planted

from daukit.ops.geometry import Geometry

pytestmark = [NEEDS_COMPILER, pytest.mark.slow]


def untouched(*shape, dtype=torch.float32):
    """Zeros of which the system keeps nothing until they are written."""
    size = max(1, prod(shape)) * dtype.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    return torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=dtype)[: prod(shape)].reshape(shape)


class Last(Kernels):
    """Runs, of grids that cover all images, the blocks of the last two."""

    images = 1

    def __init__(self, *how, **named):
        super().__init__(*how, far_blocks=2**31, **named)

    def launch(self, library, kernel, arguments, *, grid, block, shared=0, fills=()):
        blocks = -(-2 * grid[0] // self.images) + 1
        skipped = max(0, grid[0] - blocks) if grid[0] > self.images // 2 else 0
        library.launch(kernel, grid, block, shared, arguments, self.order, skipped)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    for module in (kernels, passes):
        monkeypatch.setattr(module, "empty", untouched)


def layer(batch, channels, size, mu, run, **options):
    defaults = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "radius": 3}
    defaults.update(options)
    geo = Geometry(batch, channels, channels, in_size=size, **defaults)
    shape = (channels, channels // geo.groups, mu.shape[-1])
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return Pass(run, geo, weight, mu.expand(2, *shape).contiguous(), torch.tensor(0.5), None)


def both(batch, channels, size, mu, mu_gradient="exact", dtype=torch.float32, how=None, **options):
    """Results for the last of ``batch`` images, the others being zero, and of that image alone."""
    results = []
    image = torch.randn(channels, *size, generator=torch.Generator().manual_seed(2)).to(dtype)
    for count in (batch, 1):
        run = Last(Tile(4, 4, 4), **(how or {}))
        run.images = count
        one = layer(count, channels, size, mu, run, **options)
        x = untouched(count, channels, *size, dtype=dtype)
        x[-1] = image
        error = untouched(count, channels, *one.geo.out_size, dtype=dtype)
        error[-1] = image[:, : one.geo.out_size[0], : one.geo.out_size[1]]
        output = one.forward(x, torch.arange(float(channels)))
        _, grad_blurred, grad_weight, grad_mu = one.gradients(error, x, mu_gradient)
        phases = prod(one.geo.dilation)
        grad_input = one._blur_adjoint(grad_blurred, dtype)
        alone = one.grad_input(error)
        parts = output[-1], grad_blurred[-phases:], grad_input[-1], alone[-1], grad_weight, grad_mu
        results.append([part.clone() for part in parts])
    return results


MANY = 70_000, 8, (62, 64)
NEAR = torch.tensor([0.25, -3.5]).reshape(1, 1, 1, 2)


def compare(mu_gradient="exact", **how):
    for many, alone in zip(*both(*MANY, NEAR, mu_gradient, how=how), strict=True):
        assert torch.equal(many, alone) and many.any()


@pytest.mark.parametrize("how", [{}, {"splits": 2}], ids=["whole", "split"])
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
def test_the_last_of_many_images_is_that_image_alone(mu_gradient, how):
    assert MANY[0] * MANY[1] * prod(MANY[2]) > 2**31
    compare(mu_gradient, **how)


# Offsets of 32 bits: where outputs are stored, where planes begin, and which element a thread owns.
NARROW = [
    ("forward.cu", "(long long)image * sizes.out_channels * height", "image * sizes.out_channels * height", "forward"),
    ("forward.cu", "blurred + first_plane * sizes", "blurred + (int)first_plane * (int)sizes", "forward"),
    ("backward.cu", "errors + first_plane * sizes", "errors + (int)first_plane * (int)sizes", "backward"),
    ("backward.cu", "first = plane * sizes", "first = (int)plane * (int)sizes", "backward"),
    ("blur.cu", "map * map_size + tile.plane * sizes", "map * map_size + (int)tile.plane * (int)sizes", "blur"),
    ("blur.cu", "blurred + map * map_size", "blurred + map * (int)map_size", "blur"),
    ("blur.cu", "phases + tile.plane * sizes", "phases + (int)tile.plane * (int)sizes", "blur"),
    ("unstride.cu", "(long long)blockIdx.x * blockDim.x + threadIdx.x", "(int)(blockIdx.x * blockDim.x + threadIdx.x)", "unstride"),  # noqa: E501
    ("unstride.cu", "grad_output[row * sizes.out_width", "grad_output[(int)row * sizes.out_width", "unstride"),
]  # fmt: skip


@pytest.mark.parametrize("bug", NARROW, ids=lambda bug: f"{bug[0]}: {bug[2]}")
def test_a_planted_offset_of_32_bits_is_found(bug, tmp_path):
    file, old, new, built = bug
    folder = planted(tmp_path, file, old, new)
    # In a process of its own, because what lies at such an address may be nobody's.
    code = f"import kernels, passes, pathlib, test_large; kernels.empty = passes.empty = test_large.untouched; " \
        f"test_large.compare('gaussian', sources={{{built!r}: pathlib.Path({str(folder)!r})}})"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode < 0 or "AssertionError" in done.stderr, done.stderr


def test_the_last_of_many_strided_and_dilated_images_in_half_precision_too():
    options = {"stride": (2, 1), "dilation": (1, 2), "dtype": torch.bfloat16}
    for many, alone in zip(*both(70_001, 8, (63, 64), NEAR, **options), strict=True):
        assert torch.equal(many, alone) and many.any()


def test_the_last_channel_of_an_image_just_below_the_limit_is_that_channel_alone():
    # One image of all channels has up to 2^31 elements: the last channel's begin far beyond those of a small image.
    size, channels = (61, 62), 500_000
    assert 2**30 < channels * prod(size) < 2**31
    results = []
    image = torch.randn(*size, generator=torch.Generator().manual_seed(2))
    for count in (channels, 1):
        run = Last(Tile(4, 4, 4))
        run.images = count  # planes: a grid is as large as there are of them
        geo = Geometry(1, count, count, count, size, (1, 1), (1, 1), 3)
        weight = torch.ones(count, 1, 2)
        one = Pass(run, geo, weight, NEAR.expand(2, count, 1, 2).contiguous(), torch.tensor(0.5), None)
        x = untouched(1, count, *size)
        x[0, -1] = image
        blurred = one._blur(x, [("gaussian", "gaussian")])
        results.append(blurred[0, 0, -1].clone())
    assert torch.equal(*results) and results[0].any()


def test_far_units_of_large_images_are_read_where_they_lie():
    batch, channels, size = MANY
    mu = torch.tensor([0.25, 9.5]).reshape(1, 1, 1, 2)
    results = []
    image = torch.randn(channels, *size, generator=torch.Generator().manual_seed(2))
    for count in (batch, 1):
        run = Last(Tile(4, 4, 4))
        run.images = count
        one = layer(count, channels, size, mu, run)
        x = untouched(count, channels, *size)
        x[-1] = image
        results.append([one.forward(x, None)[-1].clone(), one.grad_input(x)[-1].clone()])
    for many, alone in zip(*results, strict=True):
        assert torch.equal(many, alone) and many.any()
