"""Filters of near units, with the kernels for the rest of the work on the CPU's emulator in place of a GPU."""

import pytest
import torch
from bounds import LEAVES, spectral_bounds, truth_and_bounds
from cases import CASES
from emulator.build import NEEDS_COMPILER
from observed import Observed

from daukit.ops import backend, dau_conv2d, dispatch

pytestmark = NEEDS_COMPILER
UNDILATED = [case for case in CASES if case.options.get("dilation", 1) in (1, (1, 1))]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(params=sorted(dispatch.NEAR))
def way(request, gpu, few_instances, monkeypatch):
    monkeypatch.setitem(dispatch.BACKENDS, "near", dispatch.NEAR[request.param])
    return request.param


def run(case, arguments, mu_gradient, names=(*LEAVES, "sigma")):
    """Output, output gradient, and gradients for those of ``names`` that are there."""
    sigma = torch.tensor(case.sigma, requires_grad=True)
    arguments = {**arguments, "mu_gradient": mu_gradient, "sigma": sigma}
    leaves = [arguments[name] for name in names if arguments[name] is not None]
    with backend("near"):
        output = dau_conv2d(**arguments)
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    return output, error, torch.autograd.grad(output, leaves, error)


def check(case, mu_gradient, way, **options):
    arguments = case.arguments(torch.float32)
    output, error, grads = run(case, {**arguments, **options}, mu_gradient)
    exact, bounds, _ = truth_and_bounds(case, arguments, error, mu_gradient, learned=True)
    if way == "spectral":
        bounds = spectral_bounds(case, arguments, error, mu_gradient, learned=True)
    results = {"output": output, **dict(zip(LEAVES[:3], grads[:3], strict=True)), "sigma": grads[-1]}
    for (name, result), expected, bound in zip(results.items(), exact, bounds, strict=True):
        excess = (result.detach().double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"


@pytest.mark.parametrize("mu_gradient", [pytest.param("gaussian", marks=pytest.mark.slow), "exact"])
@pytest.mark.parametrize("case", UNDILATED, ids=lambda case: case.name)
def test_value_and_gradients_stay_within_their_bounds(case, mu_gradient, way):
    check(case, mu_gradient, way)


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "integer", "ragged_groups"])
def test_units_on_both_sides_of_the_limit_and_on_it_are_read_once(name, mu_gradient, limit, way):
    check(BY_NAME[name], mu_gradient, way, max_displacement=limit)


@pytest.mark.parametrize("name", ["plain", "ragged_groups"])
def test_the_inputs_gradient_alone_is_that_of_all(name, way):
    case = BY_NAME[name]
    alone, together = (
        run(case, case.arguments(torch.float32), "gaussian", names)[2][0] for names in (["input"], LEAVES)
    )
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "ragged_groups", "stride"])
def test_the_host_reads_nothing_of_what_the_device_has(name, mu_gradient, way):
    case = BY_NAME[name]
    arguments = case.arguments(torch.float32)
    with Observed() as observed:
        run(case, arguments, mu_gradient)
    assert observed.operations and not observed.waits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_may_be_summed_in_half_precision(dtype, way, monkeypatch):
    case = BY_NAME["plain"]
    arguments = case.arguments(torch.float32)
    arguments["input"] = arguments["input"].detach().to(dtype).requires_grad_()
    monkeypatch.setattr(dispatch, "cheapest", lambda *_: way)
    monkeypatch.setattr("daukit.ops.choose_backend", lambda *_: "auto")
    output = dau_conv2d(**arguments)
    with backend("reference"):
        expected = dau_conv2d(**{**case.arguments(), "input": arguments["input"].detach().double()})
    assert output.dtype == dtype
    # Roundings of the image, of the filter and of the sum, on values whose sums of magnitudes are below the bound's.
    size = spectral_bounds(case, case.arguments(torch.float32), torch.zeros(expected.shape), "gaussian", False)[0]
    operations = size / torch.finfo(torch.float32).eps
    assert ((output.double() - expected).abs() <= torch.finfo(dtype).eps * operations).all()


def test_a_displacement_that_is_not_finite_makes_nan_of_its_channel_and_no_other(way):
    a = BY_NAME["plain"].arguments(torch.float32)
    mu = a["mu"].detach().clone()
    mu[1, 2, 0, 1] = torch.nan
    with backend("near"):
        output, right = (dau_conv2d(a["input"], a["weight"], m, a["bias"]) for m in (mu, a["mu"]))
    others = [0, 1, 3, 4]
    assert output[:, 2].isnan().all() and not output[:, others].isnan().any()
    torch.testing.assert_close(output[:, others], right[:, others])


def test_a_dilated_layer_is_left_to_the_kernels(way):
    from daukit.ops.contract import Tensors
    from daukit.ops.geometry import Geometry

    a = BY_NAME["dilation"].arguments(torch.float32)
    tensors = Tensors(a["input"], a["weight"], a["mu"], torch.tensor(0.5), None, None)
    geo = Geometry.of(*tensors[:2], None, radius=3, stride=(1, 1), dilation=(2, 2), groups=1)
    assert not dispatch.NEAR[way].supports(tensors, geo)
