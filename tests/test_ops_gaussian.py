"""The general form (Eq. 2-10) against the dcls package, finite differences and closed forms."""

import math

import pytest
import torch
from DCLS.construct.modules import Dcls2d

from daukit.ops import dau_conv2d_gaussian


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("window", "groups"), [(5, 1), (9, 1), (7, 2)])
def test_it_equals_the_gaussian_version_of_dcls(window, groups):
    torch.manual_seed(0)
    layer = Dcls2d(
        4, 6, kernel_count=3, dilated_kernel_size=window, padding=window // 2, groups=groups, version="gauss"
    )
    layer = layer.double()
    with torch.no_grad():
        layer.P.uniform_(-1.5, 1.5)
        layer.SIG[1] = layer.SIG[0].uniform_(0.1, 0.5)  # dcls has a sigma per axis, daukit one per unit
    x, sigma = noise(2, 4, 11, 13), layer.SIG[0].abs() + 0.27
    mu = layer.P.flip(0)  # dcls's gauss version stores (x, y)
    output = dau_conv2d_gaussian(x, layer.weight, mu, sigma, layer.bias, window=window, groups=groups)
    # dcls adds 1e-7 to every normaliser, which is at least the Gaussian at the pixel nearest to its centre.
    smallest = torch.exp(-0.25 / sigma.min() ** 2)
    scale = dau_conv2d_gaussian(x.abs(), layer.weight.abs(), mu, sigma, window=window, groups=groups)
    assert ((output - layer(x)).abs() <= 1e-7 / smallest * scale).all()


def test_gradcheck_passes_for_everything_including_a_sigma_per_unit():
    x, weight, mu = noise(2, 2, 5, 6), noise(3, 2, 2, seed=1), noise(2, 3, 2, 2, seed=2)
    sigma = 0.4 + noise(3, 2, 2, seed=3).abs()
    leaves = [t.requires_grad_() for t in (x, weight, mu, sigma)]
    assert torch.autograd.gradcheck(lambda *a: dau_conv2d_gaussian(*a, window=5), leaves, fast_mode=True)


def test_the_impulse_response_is_the_papers_normalised_gaussian():
    sigma, mu = 0.8, (0.7, -1.3)
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    at = torch.tensor(mu, dtype=torch.float64).reshape(2, 1, 1, 1)
    output = dau_conv2d_gaussian(x, one, at, sigma * one, window=9)
    g = {
        (j, i): math.exp(-((j - mu[0]) ** 2 + (i - mu[1]) ** 2) / (2 * sigma**2))
        for j in range(-4, 5)
        for i in range(-4, 5)
    }
    for (j, i), value in g.items():  # out[p] = W[impulse - p]
        assert math.isclose(output[0, 0, 4 - j, 4 - i].item(), value / sum(g.values()), rel_tol=1e-12)


def test_ragged_units_equal_dense_ones_at_zero():
    x, weight, mu = noise(2, 3, 7, 9), noise(5, 3, 4, seed=1), noise(2, 5, 3, 4, seed=2)
    sigma = 0.4 + noise(5, 3, 4, seed=3).abs()
    keep = noise(5, 3, 4, seed=4) > 0
    unit_ptr = torch.nn.functional.pad(keep.flatten(0, 1).sum(1).cumsum(0), (1, 0)).int()
    ragged = dau_conv2d_gaussian(x, weight[keep], mu[:, keep], sigma[keep], window=7, unit_ptr=unit_ptr)
    torch.testing.assert_close(
        ragged, dau_conv2d_gaussian(x, weight * keep, mu, sigma, window=7), rtol=1e-12, atol=1e-12
    )


def test_a_unit_far_outside_its_window_stays_finite():
    output = dau_conv2d_gaussian(
        torch.ones(1, 1, 5, 5),
        torch.ones(1, 1, 1),
        torch.full((2, 1, 1, 1), 500.0),
        torch.full((1, 1, 1), 0.1),
        window=5,
    )
    assert torch.isfinite(output).all()


def test_wrong_values_raise_as_in_the_efficient_form():
    x, weight, mu, sigma = torch.ones(1, 1, 5, 5), torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1), torch.ones(1, 1, 1)
    for changed, match in (
        ({"mu": torch.full_like(mu, float("nan"))}, "NaN or infinite"),
        ({"sigma": -sigma}, "sigma must be positive"),
        ({"weight": weight.double()}, "dtype of weight"),
    ):
        arguments = {"weight": weight, "mu": mu, "sigma": sigma, **changed}
        with pytest.raises(ValueError, match=match):
            dau_conv2d_gaussian(x, **arguments, window=5)


def test_half_precision_input_is_computed_in_the_dtype_of_the_parameters():
    x, weight, mu, sigma = (
        torch.rand(1, 1, 5, 5).half(),
        torch.ones(1, 1, 1),
        torch.zeros(2, 1, 1, 1),
        torch.ones(1, 1, 1),
    )
    output = dau_conv2d_gaussian(x, weight, mu, sigma, torch.ones(1), window=5)
    expected = dau_conv2d_gaussian(x.float(), weight, mu, sigma, torch.ones(1), window=5)
    assert output.dtype == torch.float16 and torch.equal(output, expected.half())


@pytest.mark.parametrize("window", [0, 4, -3])
def test_an_even_window_raises(window):
    with pytest.raises(ValueError, match="positive odd"):
        dau_conv2d_gaussian(
            torch.ones(1, 1, 5, 5), torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1), torch.ones(1, 1, 1), window=window
        )


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_empty_map_has_an_empty_output_and_no_gradient(size, stride):
    leaves = [torch.ones(shape, requires_grad=True) for shape in ((2, 3, *size), (5, 3, 2), (2, 5, 3, 2), (5, 3, 2))]
    output = dau_conv2d_gaussian(*leaves, window=5, stride=stride)
    assert output.shape == (2, 5, *(-(-side // stride) for side in size))
    for leaf, grad in zip(leaves, torch.autograd.grad(output.sum(), leaves), strict=True):
        assert torch.equal(grad, torch.zeros_like(leaf))
