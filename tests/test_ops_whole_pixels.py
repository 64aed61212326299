"""The operator where units lie on whole pixels, and where it has no blur."""

import itertools
import math

import pytest
import torch
from bounds import EPS
from calls import call, gradients
from cases import CASES, UNBLURRED
from torch.nn import functional as F

from daukit.ops import backend, backends, dau_conv2d

BACKENDS = [name for name in ("reference", "dense", "native") if backends()[name] == "available"]
WHOLE = [case for case in (*CASES, *UNBLURRED) if case.integer or case.mixed]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", UNBLURRED, ids=lambda case: case.name)
def test_dense_equals_reference_without_a_blur(case):
    (output, grads), (expected, expected_grads) = (
        gradients(case.arguments(), name, mu_gradient="exact") for name in ("dense", "reference")
    )
    # Every number is a sum of at most this many products, none of which is larger than a few of the largest results.
    products = case.batch * math.prod(case.size) * case.in_channels * case.out_channels * max(case.units, 1) * 4
    for result, truth in zip((output, *grads), (expected, *expected_grads), strict=True):
        size = truth.abs().max() if truth.numel() else 0
        assert ((result - truth).abs() <= products * torch.finfo(torch.float64).eps * size).all()


@pytest.mark.parametrize("name", ["reference", "dense"])
@pytest.mark.parametrize("case", [case for case in WHOLE if case.batch], ids=lambda case: case.name)
def test_the_exact_mu_gradient_at_an_integer_is_the_right_hand_derivative(name, case):
    arguments = case.arguments()
    _, (_, _, grad_mu, *_) = gradients(arguments, name, mu_gradient="exact")
    step = 2.0**-20
    with backend("dense"), torch.no_grad():
        base = call(arguments)
        weights = torch.cos(torch.arange(base.numel(), dtype=torch.float64)).reshape(base.shape)
        every = 1 + grad_mu.numel() // 9
        for index in itertools.islice(itertools.product(*map(range, grad_mu.shape)), 0, None, every):
            moved = arguments["mu"].clone()
            moved[index] += step
            slope = ((call(arguments, mu=moved) - base) * weights).sum() / step
            # Bilinear: the forward is linear on the cell, so the difference quotient is exact but for rounding.
            assert math.isclose(slope, grad_mu[index], rel_tol=1e-7, abs_tol=1e-7)


@pytest.mark.parametrize("name", ["dense", pytest.param("reference", marks=pytest.mark.slow)])  # they are equal
@pytest.mark.parametrize("case", [case for case in UNBLURRED if case.batch], ids=lambda case: case.name)
def test_gradcheck_passes_without_a_blur(case, name):
    arguments = case.arguments()
    moves = not (case.integer or case.mixed)  # at integers the bilinear forward has a kink
    names = [leaf for leaf in ("input", "weight", "mu", "bias") if arguments[leaf] is not None]
    names = [leaf for leaf in names if moves or leaf != "mu"]
    arguments["mu"].requires_grad_(moves)

    def function(*leaves):
        return call({**arguments, **dict(zip(names, leaves, strict=True))}, mu_gradient="exact")

    with backend(name):
        assert torch.autograd.gradcheck(function, [arguments[leaf] for leaf in names], fast_mode=True)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_only_the_gradient_of_mu_is_lost_with_fixed_displacements(case, name):
    learned, fixed = (case.arguments(torch.float32) for _ in range(2))
    fixed["mu"].requires_grad_(False)
    output, grads = gradients(learned, name, mu_gradient="exact")
    with backend(name):
        again = call(fixed)
    assert torch.equal(again, output)
    names = [leaf for leaf in ("input", "weight", "mu", "bias") if learned[leaf] is not None]
    weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    others = [leaf for leaf in names if leaf != "mu"]
    expected = dict(zip(names, grads, strict=True))
    # A sum of at most this many products may be formed in another order.
    products = case.batch * math.prod(case.size) * case.in_channels * case.out_channels * max(case.units, 1) * 4
    for leaf, grad in zip(others, torch.autograd.grad(again, [fixed[leaf] for leaf in others], weights), strict=True):
        size = expected[leaf].abs().max() if expected[leaf].numel() else 0
        assert ((grad - expected[leaf]).abs() <= products * EPS * size).all()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "stride", "dilation", "groups"),
    [((3, 3), 1, 1, 1), ((5, 3), 2, 1, 2), ((1, 7), 1, 3, 1), ((3, 3), (2, 1), (1, 2), 4)],
)
def test_whole_pixels_without_a_blur_are_an_ordinary_convolution(name, shape, stride, dilation, groups):
    x, kernel, bias = noise(2, 4, 10, 13), noise(8, 4 // groups, *shape, seed=1), noise(8, seed=2)
    points = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")).flatten(1).double()
    mu = points[:, None, None].expand(2, 8, 4 // groups, -1).contiguous()
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    steps = (dilation, dilation) if isinstance(dilation, int) else dilation
    padding = tuple(n // 2 * step for n, step in zip(shape, steps, strict=True))
    expected = F.conv2d(x, kernel, bias, padding=padding, **options)
    with backend(name):
        output = dau_conv2d(*(t.float() for t in (x, kernel.flatten(2), mu, bias)), sigma=0.0, **options)
    # Rounding of the arguments, of as many products, and of the sums: docs/math.md, section 7.
    terms = kernel[0].numel() + 1
    size = F.conv2d(x.abs(), kernel.abs(), bias.abs(), padding=padding, **options)
    assert ((output.double() - expected).abs() <= (terms + 4) * EPS * size).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_one_unit_without_a_blur_moves_the_map_and_changes_no_bit(name):
    x = noise(1, 1, 7, 9).float()
    with backend(name):
        moved = dau_conv2d(x, torch.ones(1, 1, 1), torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1), sigma=0.0)
    assert torch.equal(moved[..., :5, 3:], x[..., 2:, :6])
    assert not moved[..., 5:, :].any() and not moved[..., :3].any()


def test_without_a_blur_the_papers_gradient_is_refused_where_displacements_would_learn():
    x, weight, mu = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1, requires_grad=True)
    with pytest.raises(ValueError, match=r'without a blur .* does not exist.*requires_grad_\(False\).*"exact"'):
        dau_conv2d(x, weight, mu, sigma=0.0)
    with torch.no_grad():
        assert torch.equal(dau_conv2d(x, weight, mu, sigma=0.0), x)
    assert torch.equal(dau_conv2d(x, weight, mu.detach(), sigma=0), x)
    assert torch.equal(dau_conv2d(x, weight, mu, sigma=0.0, mu_gradient="exact"), x)


@pytest.mark.parametrize("sigma", [-0.5, -1e-9, 1e-9, 0.00099, math.inf, math.nan])
def test_a_sigma_that_is_neither_nothing_nor_a_blur_is_refused(sigma):
    x, weight, mu = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1)
    with pytest.raises(ValueError, match=r"sigma must be 0, for no blur, or finite and at least 0\.001 pixels, got"):
        dau_conv2d(x, weight, mu, sigma=sigma)
