"""Calls without a blur, and without a gradient for mu, launch for launch on the CPU's emulator."""

import pytest
import torch
from bounds import truth_and_bounds
from cases import CASES, UNBLURRED
from emulator.build import NEEDS_COMPILER

from daukit.ops import backend, dau_conv2d

pytestmark = NEEDS_COMPILER
PLAIN_AND_SPREAD = [{}, pytest.param({"dilation": 2, "stride": (2, 1)}, marks=pytest.mark.slow)]
BY_NAME = {case.name: case for case in (*CASES, *UNBLURRED)}


@pytest.mark.parametrize("frozen", [False, True], ids=["mu learned", "mu frozen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("options", PLAIN_AND_SPREAD, ids=["plain", "spread"])
def test_without_a_blur_sums_of_small_numbers_are_exact_and_nothing_is_blurred(
    options, dtype, frozen, gpu, few_instances
):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-4, 5, (2, 3, 8, 10), generator=generator)
    weight = torch.randint(-2, 3, (4, 3, 3), generator=generator)
    # On whole pixels, and halfway between four: the kernels' cells are exact there.
    mu = torch.randint(-4, 4, (2, 4, 3, 3), generator=generator) + torch.tensor([0, 0.5, 0])
    results = []
    for name, image, parameters in (("cuda", dtype, torch.float32), ("reference", torch.float64, torch.float64)):
        leaves = [x.to(image).requires_grad_(), weight.to(parameters).requires_grad_()]
        at = mu.to(parameters).requires_grad_(not frozen)
        with backend(name):
            output = dau_conv2d(*leaves, at, sigma=0.0, mu_gradient="exact" if not frozen else "gaussian", **options)
        error = (torch.arange(output.numel()) % 5 - 2).reshape(output.shape).to(image)
        results.append([output, *torch.autograd.grad(output, leaves if frozen else [*leaves, at], error)])
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected.to(actual.dtype))
    kernels = {launch.kernel for launch in gpu.launched}
    # Images that are not float32, and phases, still have to be put in order.
    assert bool(kernels & {"dau_blur", "dau_blur_adjoint"}) == (dtype != torch.float32 or bool(options))


def check(case, frozen, device="cpu"):
    """Output and gradients within their bounds: for input, weight and, unless it is ``frozen``, mu."""
    arguments = case.arguments(torch.float32)
    there = {k: v.detach().to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    names = ["input", "weight"] if frozen else ["input", "weight", "mu"]
    leaves = [there[name].requires_grad_() for name in names]
    with backend("cuda"):
        output = dau_conv2d(**there, mu_gradient="gaussian" if frozen else "exact")
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    grads = torch.autograd.grad(output, leaves, error.to(device))
    exact, bounds, _ = truth_and_bounds(case, arguments, error, "exact", learned=False)
    for name, result, expected, bound in zip(("output", *names), (output, *grads), exact, bounds, strict=False):
        excess = (result.detach().cpu().double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"


@pytest.mark.parametrize("frozen", [False, True], ids=["mu learned", "mu frozen"])
@pytest.mark.parametrize(
    "name", ["unblurred", "unblurred_row", "unblurred_stride", "unblurred_ragged", "unblurred_far"]
)
def test_without_a_blur_values_and_gradients_stay_within_their_bounds(name, frozen, gpu, few_instances):
    check(BY_NAME[name], frozen)


@pytest.mark.parametrize("name", ["plain", "integer", "far", "ragged_groups"])
def test_where_mu_is_frozen_the_other_gradients_stay_within_their_bounds(name, gpu, few_instances):
    check(BY_NAME[name], frozen=True)
    forms = [dict(launch.source.macros) for launch in gpu.launched if launch.kernel == "dau_backward"]
    assert [form["DAU_MU"] for form in forms] == [0]
