"""The operator in the frequency domain: bounds in float32, tiles, sizes, blocks and half precision."""

import math

import pytest
import torch
from bounds import LEAVES, spectral_bounds, truth_and_bounds
from calls import BY_NAME, gradients
from cases import CASES, UNBLURRED

from daukit.ops import backend, dau_conv2d, filters, tiling
from daukit.ops.contract import Tensors
from daukit.ops.filters import Window
from daukit.ops.geometry import Geometry
from daukit.ops.reference import Reference
from daukit.ops.spectral import Spectral
from daukit.ops.tiling import Block, Tiling, good_size

BLURRED = [case for case in CASES if case.sigma]


@pytest.fixture
def small_parts(monkeypatch):
    """Let tiles, blocks of images and chunks of filters be so small that every case has several of each."""
    monkeypatch.setattr(tiling, "LARGEST", 16)
    monkeypatch.setattr(tiling, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(filters, "CHUNK_BYTES", 3000)
    tiling._best.cache_clear()
    yield
    tiling._best.cache_clear()


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", BLURRED, ids=lambda case: case.name)
def test_value_and_gradients_in_float32_stay_within_their_bounds(case, mu_gradient):
    arguments = case.arguments(torch.float32)
    sigma = torch.tensor(case.sigma, requires_grad=True)
    leaves = [arguments[name] for name in LEAVES if arguments[name] is not None]
    with backend("spectral"):
        output = dau_conv2d(**{**arguments, "sigma": sigma, "mu_gradient": mu_gradient})
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    grads = torch.autograd.grad(output, [*leaves, sigma], error)
    exact = truth_and_bounds(case, arguments, error, mu_gradient, learned=True)[0]
    bounds = spectral_bounds(case, arguments, error, mu_gradient, learned=True)
    for actual, expected, bound in zip((output, *grads[:3], grads[-1]), exact, bounds, strict=True):
        assert actual.dtype == torch.float32
        assert ((actual.detach().double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("case", [*CASES, *UNBLURRED], ids=lambda case: case.name)
def test_in_small_parts_it_computes_the_same(case, small_parts):
    arguments = case.arguments()
    parts, part_grads = gradients(arguments, "spectral", mu_gradient="exact")
    whole, grads = gradients(arguments, "dense", mu_gradient="exact")
    for part, one in zip((parts, *part_grads), (whole, *grads), strict=True):
        torch.testing.assert_close(
            part, one, rtol=0, atol=1e-12 * float(one.detach().abs().max() if one.numel() else 0) + 1e-300
        )


def test_a_large_map_is_cut_into_tiles_and_computes_the_same():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 300, 170, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    mu = 8 * torch.rand(2, 4, 3, 2, generator=generator, dtype=torch.float64) - 4
    tiles = Tiling.of(Window((-4, -4), (9, 9)), Geometry(2, 3, 4, 1, (300, 170), (1, 1), (1, 1), 0))
    assert max(tiles.count) > 1 and max(tiles.size) <= tiling.LARGEST
    results = []
    for name in ("spectral", "dense"):
        leaves = [t.clone().requires_grad_() for t in (x, weight, mu)]
        with backend(name):
            output = dau_conv2d(*leaves)
        results.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize(
    ("least", "size"), [(0, 2), (1, 2), (3, 4), (11, 12), (37, 40), (61, 64), (97, 98), (121, 126)]
)
def test_transforms_have_even_sizes_of_small_primes(least, size):
    assert good_size(least) == size


def test_every_tiling_holds_what_its_outputs_read():
    for pixels in (1, 2, 7, 14, 56, 100, 129, 300):
        for window in (
            Window((-4, -4), (9, 9)),
            Window((0, 0), (1, 1)),
            Window((2, -7), (3, 2)),
            Window((-40, 5), (90, 1)),
        ):
            tiles = Tiling.of(window, Geometry(8, 3, 4, 1, (pixels, 9), (1, 1), (1, 1), 0))
            for axis, size in enumerate((pixels, 9)):
                first, last = window.range(axis)
                assert tiles.count[axis] * tiles.step[axis] >= size
                # A window holds every pixel that its tile reads, or all that lies outside falls on zeros.
                cut = tiles.origin[axis] == first and tiles.step[axis] + last - first <= tiles.size[axis]
                whole = tiles.count[axis] == 1 and tiles.size[axis] - size >= max(-first, last, 0)
                assert cut or whole
                assert all(prime in (2, 3, 5, 7) for prime in primes(tiles.size[axis]))


def primes(number):
    found = []
    for prime in range(2, number + 1):
        while number % prime == 0:
            found.append(prime)
            number //= prime
    return found


def test_blocks_cover_all_tiles_once_and_stay_within_their_budget(monkeypatch):
    geo = Geometry(5, 64, 32, 1, (500, 400), (1, 1), (1, 1), 0)
    tiles = Tiling.of(Window((-4, -4), (9, 9)), geo)
    of_row = 96 * tiles.count[1] * tiles.spectrum_bytes(torch.float32)
    for budget in (1, 2 * of_row, tiles.count[0] * of_row, 3 * tiles.count[0] * of_row):
        monkeypatch.setattr(tiling, "BLOCK_BYTES", budget)
        blocks = list(tiles.blocks(geo, torch.float32))
        covered = [
            (image, row)
            for block in blocks
            for image in range(block.first_image, block.last_image)
            for row in range(block.first_row, block.last_row)
        ]
        assert sorted(covered) == [(i, r) for i in range(5) for r in range(tiles.count[0])]
        assert all(rows(block) * of_row <= max(budget, of_row) for block in blocks)


def rows(block: Block):
    return (block.last_image - block.first_image) * (block.last_row - block.first_row)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_in_half_precision_stay_within_its_rounding(dtype):
    case = BY_NAME["plain"]
    a = case.arguments()
    tensors = Tensors(
        a["input"].detach(), a["weight"].detach(), a["mu"].detach(), torch.tensor(0.5).double(), None, None
    )
    geo = Geometry.of(*tensors[:2], None, radius=3, stride=(1, 1), dilation=(1, 1), groups=1)
    expected = Reference().forward(tensors, geo, compute=torch.float64)
    output = Spectral().forward(tensors, geo, compute=dtype)
    # Two operands and the sums over channels are rounded, and the rest is exact beside that.
    size = spectral_bounds(case, {**a, "bias": None}, torch.zeros(expected.shape), "gaussian", False)[0]
    blur, terms = 4 * 7, 10
    operations = blur + 16 + 12 * math.log2(16 * 63) + 6 * 16 + terms
    norms = size / operations / torch.finfo(torch.float32).eps
    assert ((output - expected).abs() <= 2 * (2 + case.in_channels) * torch.finfo(dtype).eps * norms).all()
    assert (output - expected).abs().max() > 0
