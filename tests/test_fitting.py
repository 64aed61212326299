"""Fitting units to kernels: what is found, how near it is, and that the operator agrees."""

import itertools
import math

import pytest
import torch

from daukit.fitting import fit, fit_errors, fit_units
from daukit.fitting.search import INDEPENDENT
from daukit.ops import backend, dau_conv2d

TINY = 1e-3  # the least sigma: its blur is the identity


def kernel_of(weight, mu, sigma, side):
    """The kernel (side, side) that units (K,), (2, K) are, read off the operator's answer to a single bright pixel."""
    image = torch.zeros(1, 1, 2 * side + 1, 2 * side + 1, dtype=weight.dtype)
    image[0, 0, side, side] = 1
    with backend("reference"):
        output = dau_conv2d(image, weight[None, None], mu[:, None, None], sigma=sigma)
    half = side // 2
    # out(p) = sum_q k(q) image(p + q), so the pixel at c shows k(c - p).
    return output[0, 0].flip(0, 1)[side - half : side + half + 1, side - half : side + half + 1]


def random_kernels(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_window(kernel, side):
    wide = kernel.new_zeros(side, side)
    y, x = ((side - s) // 2 for s in kernel.shape)
    wide[y : side - y, x : side - x] = kernel
    return wide


@pytest.mark.parametrize(("y", "x"), list(itertools.product(range(3), range(5))))
def test_a_single_tap_gets_one_unit_where_it_is(y, x):
    kernel = torch.zeros(1, 3, 5)
    kernel[0, y, x] = -0.7
    fitted = fit_units(kernel, 1, sigma=TINY)
    assert fitted.mu[:, 0, 0].tolist() == [y - 1, x - 2]
    assert fitted.weight[0, 0] == torch.tensor(-0.7)
    assert fitted.error == 0


@pytest.mark.parametrize("sigma", [TINY, 0.3, 0.5])
def test_one_planted_unit_is_recovered(sigma):
    planted = torch.tensor([[0.3], [-0.75]], dtype=torch.float64)
    kernel = kernel_of(torch.tensor([-1.5], dtype=torch.float64), planted, sigma, 11)
    fitted = fit_units(kernel[None], 1, sigma=sigma)
    torch.testing.assert_close(fitted.mu[:, 0], planted)
    torch.testing.assert_close(fitted.weight[0], torch.tensor([-1.5], dtype=torch.float64))
    assert fitted.error < 1e-7  # the square root of float64's digits


def test_planted_units_that_do_not_overlap_are_recovered():
    weight = torch.tensor([1.5, -0.7, 0.4], dtype=torch.float64)
    mu = torch.tensor([[-3.3, 3.25, -2.5], [-2.75, 3.5, 3.2]], dtype=torch.float64)
    kernel = kernel_of(weight, mu, 0.3, 15)
    fitted = fit_units(kernel[None], 3, sigma=0.3)
    order = fitted.weight[0].argsort(descending=True)
    expected = weight.argsort(descending=True)
    torch.testing.assert_close(fitted.weight[0, order], weight[expected])
    torch.testing.assert_close(fitted.mu[:, 0, order], mu[:, expected])


# 16: more than there are whole displacements to search
@pytest.mark.slow
@pytest.mark.parametrize(("shape", "units"), [((3, 3), 9), ((3, 3), 10), ((1, 3), 3), ((1, 3), 16)])
def test_as_many_units_as_taps_and_no_blur_are_exact(shape, units):
    kernels = random_kernels(4, 3, *shape)
    fitted = fit_units(kernels, units, sigma=TINY)
    for o, c in itertools.product(range(4), range(3)):
        again = kernel_of(fitted.weight[o, c], fitted.mu[:, o, c], TINY, 7)
        torch.testing.assert_close(again, on_window(kernels[o, c], 7))


@pytest.mark.parametrize("shape", [(3, 3), (1, 5), (7, 3)])
@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_the_reported_error_is_that_of_the_operators_kernel(shape, sigma):
    kernels = random_kernels(5, *shape)
    fitted = fit_units(kernels, 3, sigma=sigma)
    side = 21  # blur and displacements stay inside
    residuals = []
    for kernel, weight, mu in zip(kernels, fitted.weight, fitted.mu.movedim(1, 0), strict=True):
        residuals.append((kernel_of(weight, mu, sigma, side) - on_window(kernel, side)).norm())
    residuals = torch.stack(residuals)
    torch.testing.assert_close(fitted.filter_errors, residuals / kernels.flatten(1).norm(dim=1))
    assert fitted.error == pytest.approx(float(residuals.norm() / kernels.norm()))


def least_squares_error(kernel, points, sigma, side=15):
    """Relative error of the best weights for units at ``points`` [(y, x), ...]."""
    one = torch.ones(1, dtype=torch.float64)
    columns = [kernel_of(one, torch.tensor(p, dtype=torch.float64)[:, None], sigma, side).flatten() for p in points]
    target = on_window(kernel, side).flatten()
    design = torch.stack(columns, dim=1)
    return float((design @ torch.linalg.lstsq(design, target).solution - target).norm() / target.norm())


@pytest.mark.slow
def test_one_unit_is_as_good_as_the_best_of_a_fine_grid():
    kernels = random_kernels(3, 3, 3)
    grid = torch.linspace(-1.5, 1.5, 25).tolist()
    for kernel, error in zip(kernels, fit_units(kernels, 1).filter_errors, strict=True):
        best = min(least_squares_error(kernel, [point], 0.5) for point in itertools.product(grid, grid))
        assert error <= best + 1e-12


@pytest.mark.slow
def test_two_units_are_as_good_as_the_best_pair_of_a_grid():
    kernels = random_kernels(2, 3, 3)
    points = list(itertools.product((-1.0, -0.5, 0.0, 0.5, 1.0), repeat=2))
    for kernel, error in zip(kernels, fit_units(kernels, 2).filter_errors, strict=True):
        best = min(least_squares_error(kernel, pair, 0.5) for pair in itertools.combinations(points, 2))
        assert error <= best + 1e-12


@pytest.mark.slow
def test_errors_never_grow_with_units_and_end_at_the_taps():
    rounding = 1e-7  # fits are compared by squared error, so this is the square root of float64's digits
    errors = fit_errors(random_kernels(20, 3, 3), 10, sigma=TINY)
    assert all(after <= before + rounding for before, after in itertools.pairwise(errors))
    assert errors[0] == pytest.approx(fit_units(random_kernels(20, 3, 3), 1, sigma=TINY).error)
    assert max(errors[8:]) < rounding
    blurred = fit_errors(random_kernels(20, 3, 3), 6, sigma=0.8)
    assert all(after <= before + rounding for before, after in itertools.pairwise(blurred))


def test_taps_of_opposite_sign_need_a_unit_each():
    kernel = torch.zeros(1, 3, 3)
    kernel[0, 0, 0], kernel[0, 2, 1] = 1.0, -1.0
    errors = fit_errors(kernel, 3, sigma=TINY)
    assert errors[0] == pytest.approx(math.sqrt(0.5))
    assert errors[1:] == pytest.approx((0, 0))


def test_two_equal_neighbours_need_one_unit_between_them():
    kernel = torch.zeros(1, 3, 3)
    kernel[0, 1, 1], kernel[0, 1, 2] = 0.5, 0.5
    fitted = fit_units(kernel, 1, sigma=TINY)
    assert fitted.mu[:, 0, 0].tolist() == pytest.approx([0, 0.5])
    assert fitted.weight.item() == pytest.approx(1)


@pytest.mark.parametrize(("limit", "reach"), [(0, 0), (0.9, 0), (1, 1), (2.5, 2), (None, 3)])
def test_displacements_stay_within_the_whole_pixels_of_the_limit(limit, reach):
    fitted = fit_units(random_kernels(30, 5, 5), 4, sigma=0.4, max_displacement=limit)
    assert fitted.mu.abs().max() <= reach


def test_no_displacement_leaves_the_centre_tap():
    kernels = random_kernels(6, 3, 3)
    fitted = fit_units(kernels, 1, sigma=TINY, max_displacement=0)
    assert torch.equal(fitted.mu, torch.zeros_like(fitted.mu))
    torch.testing.assert_close(fitted.weight[:, 0], kernels[:, 1, 1])


def test_a_filter_of_zeros_has_no_error_and_no_weight():
    kernels = random_kernels(2, 3, 3)
    kernels[0] = 0
    fitted = fit_units(kernels, 2)
    assert fitted.filter_errors[0] == 0 and not fitted.weight[0].any()
    assert fit_errors(kernels[:1], 2) == (0, 0)


def test_two_units_get_no_weights_that_only_cancel():
    kernels = random_kernels(200, 3, 3)
    fitted = fit_units(kernels, 2, sigma=1.0)
    one = torch.ones(1, dtype=torch.float64)
    for kernel, weight, mu in zip(kernels[:20], fitted.weight, fitted.mu.movedim(1, 0), strict=False):
        for u in (0, 1):
            # A weight is <k, phi'> / |phi'|^2, where phi' is what the unit has of its own.
            size = kernel_of(one, mu[:, u : u + 1], 1.0, 21).norm()
            assert weight[u].abs() * size <= kernel.norm() / math.sqrt(INDEPENDENT) * (1 + 1e-9)


def test_a_filters_fit_does_not_depend_on_its_company(monkeypatch):
    kernels = random_kernels(12, 3, 3)
    together = fit_units(kernels, 2)
    monkeypatch.setattr(fit, "CHUNK_VALUES", 1)
    seen = []
    alone = fit_units(kernels, 2, on_filters=lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(alone.filter_errors, together.filter_errors)
    assert seen == [(i, 12) for i in range(1, 13)]


def test_the_result_has_the_kernels_shape_dtype_and_no_gradient():
    kernels = torch.nn.Parameter(random_kernels(4, 2, 3, 3).float())
    fitted = fit_units(kernels, 5)
    assert fitted.weight.shape == (4, 2, 5) and fitted.mu.shape == (2, 4, 2, 5) and fitted.filter_errors.shape == (4, 2)
    assert fitted.weight.dtype == fitted.mu.dtype == torch.float32
    assert not fitted.weight.requires_grad


@pytest.mark.parametrize(
    ("kernels", "options", "match"),
    [
        (torch.ones(1, 2, 3), {}, "odd sides"),
        (torch.ones(3, 3), {}, "odd sides"),
        (torch.full((1, 3, 3), math.nan), {}, "NaN"),
        (torch.ones(1, 3, 3), {"units": 0}, "units must"),
        (torch.ones(1, 3, 3), {"sigma": 0.0}, "sigma must"),
        (torch.ones(1, 3, 3), {"max_displacement": -1}, "max_displacement must"),
        (torch.ones(1, 3, 3), {"starts": 1}, "starts must"),
    ],
)
def test_a_wrong_argument_raises(kernels, options, match):
    with pytest.raises(ValueError, match=match):
        fit_units(kernels, **{"units": 2, **options})
