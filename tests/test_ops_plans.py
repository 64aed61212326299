"""Plans of frozen layers, against the operator's float64 results within the bound of docs/math.md, section 7."""

from pathlib import Path

import pytest
import torch
from bounds import geometry, truth_and_bounds
from cases import CASES, UNBLURRED

from daukit import ops
from daukit.ops import backend, dau_conv2d
from daukit.ops.geometry import Geometry
from daukit.ops.plans import Plan

needs_library = pytest.mark.skipif(ops.backends()["native"] != "available", reason=ops.backends()["native"])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plan_of(x, w, mu, radius=0, sigma=0.0, unit_ptr=None, **steps):
    sizes = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, **steps}
    return Plan(w, mu, unit_ptr, torch.tensor(sigma), Geometry.of(x, w, unit_ptr, radius=radius, **sizes))


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("case", [*CASES, *UNBLURRED], ids=lambda case: case.name)
def test_a_plan_stays_within_the_operators_bound(case, relu):
    arguments = case.arguments(torch.float32)
    x, w, mu, bias, unit_ptr = (arguments[name] for name in ("input", "weight", "mu", "bias", "unit_ptr"))
    plan = Plan(w, mu, unit_ptr, torch.tensor(case.sigma), geometry(case, arguments, learned=False))
    results = [plan.run(x, bias, relu) for _ in range(2)]
    assert torch.equal(*results)  # the lists are not used up
    exact, bounds, _ = truth_and_bounds(case, arguments, torch.zeros_like(results[0]), "exact", learned=False)
    expected = exact[0].relu() if relu else exact[0]
    assert not results[0].requires_grad
    assert ((results[0].double() - expected).abs() <= bounds[0]).all()


@needs_library
@pytest.mark.parametrize("name", ["far", "integer_far", "unblurred_units", "unblurred_far"])
def test_a_plan_of_several_passes_stays_within_it_too(name, narrow_passes):
    case = next(case for case in [*CASES, *UNBLURRED] if case.name == name)
    for relu in (False, True):
        test_a_plan_stays_within_the_operators_bound(case, relu)


@needs_library
def test_lists_are_of_the_units_as_they_were_and_take_memory():
    x, w, mu = noise(2, 6, 9, 9), noise(4, 6, 2), noise(2, 4, 6, 2).round()
    with backend("native"):
        plan, expected = plan_of(x, w, mu), dau_conv2d(x, w, mu, sigma=0)
        assert plan.nbytes >= 8 * w.numel()  # an offset and a weight each
        w.zero_()
        mu.fill_(100)
        assert torch.equal(plan.run(x), expected)
        del w, mu
        assert torch.equal(plan.run(x), expected)


@needs_library
def test_a_plan_asks_which_backend_is_wanted():
    x, w, mu = noise(1, 2, 5, 5), noise(3, 2, 2), noise(2, 3, 2, 2).round()
    with backend("native"):
        plan = plan_of(x, w, mu)
    w.zero_()  # only the lists remember the weights
    with backend("native"):
        assert plan.run(x).any()
    with backend("dense"):
        assert not plan.run(x).any()


@needs_library
def test_the_number_of_threads_may_change_after_planning():
    x, w, mu = noise(2, 40, 12, 12), noise(40, 40, 2), (3 * noise(2, 40, 40, 2)).round()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with backend("native"):
            plan = plan_of(x, w, mu)
            alone = plan.run(x)
            torch.set_num_threads(3)
            assert torch.equal(plan.run(x), alone)
    finally:
        torch.set_num_threads(threads)


def test_any_memory_layout_of_input_and_bias_is_read_right():
    x, w, mu, bias = noise(2, 6, 9, 9), noise(4, 6, 2), noise(2, 4, 6, 2), noise(8)
    plan = plan_of(x, w, mu, radius=3, sigma=0.5)
    expected = plan.run(x, bias[::2].clone())
    assert torch.equal(plan.run(x.to(memory_format=torch.channels_last), bias[::2]), expected)
    assert torch.equal(plan.run(x.mT.contiguous().mT, bias[::2]), expected)


def test_a_displacement_that_is_no_number_is_refused():
    x, w, mu = noise(1, 2, 5, 5), noise(3, 2, 2), noise(2, 3, 2, 2)
    mu[1, 2, 0, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        plan_of(x, w, mu).run(x)


@needs_library
def test_plans_free_their_memory():
    x, w, mu = noise(1, 64, 8, 8), noise(64, 64, 8), noise(2, 64, 64, 8).round()
    with backend("native"):
        plan_of(x, w, mu).run(x)
        before = _resident()
        for _ in range(200):  # lists of 256 KiB each
            plan_of(x, w, mu).run(x)
        assert _resident() - before < 30 << 20


def _resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
