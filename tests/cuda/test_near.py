"""Filters of near units, with the kernels for the rest of the work on the CPU's emulator in place of a GPU."""

import pytest
import torch
from bounds import LEAVES, spectral_bounds, truth_and_bounds
from cases import CASES
from emulator.build import NEEDS_COMPILER
from observed import Observed

from daukit.ops import backend, dau_conv2d, dispatch
from daukit.ops.cuda import near
from daukit.ops.cuda.call import Call, Units
from daukit.ops.filters import Filters, expected_window
from daukit.ops.geometry import Geometry
from daukit.ops.units import unit_list

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


def test_units_at_the_limit_itself_are_near_for_slopes_too(way, gpu):
    # Projection leaves units there, whose right-hand slopes need the tap beyond it.
    call = Call(Geometry(1, 1, 2, 1, (9, 9), (1, 1), (1, 1), 3, 2), UNITS_AT_2, torch.zeros(1))
    for slopes, window in ((False, 5), (True, 7)):
        units, far, limit = near._near(call, slopes)
        assert int(far) == 1 and expected_window(call.geo, limit).size == (window, window)
        assert units.weight.tolist() == [1.0, 2.0, 3.0, 0.0]


UNITS_AT_2 = Units(torch.tensor([1.0, 2, 3, 4]), torch.tensor([[2.0, -2, 0.5, 3.5], [1.0, 2, -2, 0]]), None, 2)


@pytest.mark.parametrize("name", ["integer", "far"])
def test_dead_taps_of_filters_add_nothing_and_each_to_its_own_pair(name):
    a = BY_NAME[name].arguments(torch.float32)
    geo = Geometry.of(a["input"], a["weight"], None, radius=3, stride=(1, 1), dilation=(1, 1), groups=1)
    units = unit_list(a["weight"].detach(), a["mu"].detach(), None)
    (chunk,) = Filters(units, geo).chunks()
    assert torch.equal(chunk.cells.index // (chunk.window.size[0] * chunk.window.size[1]), units.pair.expand(4, -1))
