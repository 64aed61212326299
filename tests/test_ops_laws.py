"""Laws that the operator obeys whatever its kernels do."""

import pytest
import torch
from torch.nn import functional as F

from daukit.ops import backend, dau_conv2d, dau_conv2d_gaussian


@pytest.fixture(params=["reference", "dense"], autouse=True)
def each_backend(request):
    with backend(request.param):
        yield


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def grid3(weight):
    """Displacements of a 3x3 grid in the order of a convolution's taps, for weight (O, C, 9)."""
    offsets = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    points = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij")).flatten(1)
    return points[:, None, None].expand(2, *weight.shape).contiguous()


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 3, 1), (2, (2, 1), 4)])
def test_a_grid_of_integer_displacements_with_vanishing_sigma_is_a_convolution(stride, dilation, groups):
    x, weight, bias = noise(2, 4, 10, 13), noise(8, 4 // groups, 9, seed=1), noise(8, seed=2)
    output = dau_conv2d(x, weight, grid3(weight), bias, sigma=0.01, stride=stride, dilation=dilation, groups=groups)
    kernel = weight.reshape(8, -1, 3, 3)
    close(output, F.conv2d(x, kernel, bias, stride=stride, padding=dilation, dilation=dilation, groups=groups))


def test_the_output_is_linear_in_the_weight():
    x, mu = noise(2, 3, 7, 9), 3 * noise(2, 5, 3, 2, seed=1)
    one, two = noise(5, 3, 2, seed=2), noise(5, 3, 2, seed=3)
    close(dau_conv2d(x, 2 * one - two, mu), 2 * dau_conv2d(x, one, mu) - dau_conv2d(x, two, mu))


def test_shifting_the_input_shifts_the_output():
    x = torch.zeros(1, 2, 30, 34, dtype=torch.float64)
    x[..., 12:17, 13:19] = noise(1, 2, 5, 6)
    weight, mu = noise(3, 2, 2, seed=1), noise(2, 3, 2, 2, seed=2)
    shifted = torch.roll(x, (3, -2), dims=(2, 3))
    close(dau_conv2d(shifted, weight, mu), torch.roll(dau_conv2d(x, weight, mu), (3, -2), dims=(2, 3)))


def test_moving_every_unit_by_an_integer_moves_the_output_the_other_way():
    x = torch.zeros(1, 2, 30, 34, dtype=torch.float64)
    x[..., 12:17, 13:19] = noise(1, 2, 5, 6)
    weight, mu = noise(3, 2, 2, seed=1), noise(2, 3, 2, 2, seed=2)
    moved = mu + torch.tensor([2.0, -3.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    # Read at p + mu: what lay at p + 2 comes to p. 1e-12: mu + 2 rounds the fraction.
    close(dau_conv2d(x, weight, moved), torch.roll(dau_conv2d(x, weight, mu), (-2, 3), dims=(2, 3)))


def test_the_order_of_units_does_not_matter():
    x, weight, mu = noise(2, 3, 7, 9), noise(5, 3, 4, seed=1), 3 * noise(2, 5, 3, 4, seed=2)
    order = torch.tensor([2, 0, 3, 1])
    close(dau_conv2d(x, weight[..., order], mu[..., order]), dau_conv2d(x, weight, mu))


def test_groups_equal_the_block_diagonal_layer():
    x, weight, mu = noise(2, 4, 7, 9), noise(6, 2, 3, seed=1), 2 * noise(2, 6, 2, 3, seed=2)
    wide_weight, wide_mu = torch.zeros(6, 4, 3, dtype=torch.float64), torch.zeros(2, 6, 4, 3, dtype=torch.float64)
    for group in (0, 1):
        outputs, inputs = slice(3 * group, 3 * group + 3), slice(2 * group, 2 * group + 2)
        wide_weight[outputs, inputs], wide_mu[:, outputs, inputs] = weight[outputs], mu[:, outputs]
    close(dau_conv2d(x, weight, mu, groups=2), dau_conv2d(x, wide_weight, wide_mu))


def test_ragged_equals_dense_with_the_removed_units_at_zero():
    x, weight, mu = noise(2, 3, 7, 9), noise(5, 3, 4, seed=1), 3 * noise(2, 5, 3, 4, seed=2)
    keep = noise(5, 3, 4, seed=3) > 0
    unit_ptr = F.pad(keep.flatten(0, 1).sum(1).cumsum(0), (1, 0)).int()
    ragged = dau_conv2d(x, weight[keep], mu[:, keep], unit_ptr=unit_ptr)
    close(ragged, dau_conv2d(x, weight * keep, mu))


@pytest.mark.parametrize("dilation", [2, 3])
def test_a_dilated_layer_on_a_finer_map_is_the_undilated_one_on_the_coarse_map(dilation):
    coarse, weight, mu = noise(2, 3, 7, 9), noise(5, 3, 4, seed=1), 3 * noise(2, 5, 3, 4, seed=2)
    fine = noise(2, 3, 7 * dilation, 9 * dilation, seed=3)
    fine[..., ::dilation, ::dilation] = coarse
    output = dau_conv2d(fine, weight, mu, dilation=dilation)
    close(output[..., ::dilation, ::dilation], dau_conv2d(coarse, weight, mu))


def test_stride_keeps_every_nth_output():
    x, weight, mu = noise(2, 3, 7, 10), noise(5, 3, 4, seed=1), 3 * noise(2, 5, 3, 4, seed=2)
    close(dau_conv2d(x, weight, mu, stride=(2, 3)), dau_conv2d(x, weight, mu)[..., ::2, ::3])


def test_the_general_form_equals_the_efficient_one_in_the_interior_at_integer_displacements():
    x, weight = noise(2, 3, 27, 25), noise(5, 3, 4, seed=1)
    mu = noise(2, 5, 3, 4, seed=2).mul(2).round().clamp(-3, 3)
    efficient = dau_conv2d(x, weight, mu, sigma=0.5)
    general = dau_conv2d_gaussian(x, weight, mu, torch.full_like(weight, 0.5), window=13)
    # The window of 13 holds every displaced Gaussian to 3 taps beyond its centre, as the efficient form's blur has.
    inner = (..., slice(6, -6), slice(6, -6))
    # Only the wider window holds the Gaussian's mass beyond the blur's radius of 3, and its normaliser counts it.
    offsets = torch.arange(-9, 10, dtype=torch.float64)
    g = torch.exp(-(offsets**2) / (2 * 0.5**2))
    tail = float(g[offsets.abs() > 3].sum() / g.sum())
    largest = x.abs().max() * weight.abs().sum((1, 2)).max()
    assert (general[inner] - efficient[inner]).abs().max() <= 4 * tail * largest + 1e-12
