"""The operator: gradients, backends against each other, and bad input."""

import math

import pytest
import torch
from bounds import results
from calls import BY_NAME, LEAVES, call, gradients
from cases import CASES, UNBLURRED, Case

from daukit import ops
from daukit.ops import backend, dau_conv2d
from daukit.ops.checks import pair
from daukit.ops.contract import Tensors
from daukit.ops.kernels import blur_radius, blur_taps


def error_bound(case, arguments):
    """|error| <= c (terms) eps dau_conv2d(|x|, |w|, mu): each term is blurred over (2R+1)^2 taps and interpolated."""
    absolute = {
        k: v.detach().double().abs() if k in ("input", "weight", "bias") and v is not None else v
        for k, v in arguments.items()
    }
    absolute["mu"] = arguments["mu"].detach().double()
    with backend("reference"):
        scale = call(absolute)
    operations = 2 * (2 * blur_radius(case.sigma) + 1) ** 2 + 4 + 2
    terms = case.in_channels // case.groups * case.units + 1
    return (operations + 4 * terms) * torch.finfo(torch.float32).eps * scale


@pytest.mark.parametrize("name", ["dense", "spectral"])
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_dense_and_spectral_equal_reference_in_value_and_gradients(case, mu_gradient, name):
    arguments = case.arguments()
    sigma = torch.tensor(case.sigma, dtype=torch.float64, requires_grad=True)
    expected, expected_grads = gradients(arguments, "reference", mu_gradient=mu_gradient, sigma=sigma)
    actual, actual_grads = gradients(arguments, name, mu_gradient=mu_gradient, sigma=sigma)
    # Every number is a sum of at most this many products, none of which is larger than a few of the largest results.
    products = case.arguments()["input"].numel() * expected.shape[1] * case.units * 4 * (2 * blur_radius(1.6) + 1)
    for result, truth in zip((actual, *actual_grads), (expected, *expected_grads), strict=True):
        size = truth.abs().max() if truth.numel() else 0
        assert ((result - truth).abs() <= products * torch.finfo(torch.float64).eps * size).all()


@pytest.mark.parametrize("case", [*CASES, *UNBLURRED], ids=lambda case: case.name)
@pytest.mark.parametrize("name", ["reference", "dense"])
def test_float32_stays_within_the_bound_of_its_operation_count(case, name):
    arguments = case.arguments(torch.float32)
    with backend(name):
        actual = call(arguments, mu=arguments["mu"].detach())
    exact = {
        k: v.detach().double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in arguments.items()
    }
    with backend("reference"):
        expected = call(exact)
    assert actual.dtype == torch.float32
    assert ((actual.double() - expected).abs() <= error_bound(case, arguments)).all()


# What follows for the reference from other tests: its gradients are those of the dense path and of its own forward.
IMPLIED = ["dense", pytest.param("reference", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", IMPLIED)
@pytest.mark.parametrize("case", [case for case in CASES if case.batch], ids=lambda case: case.name)
def test_gradcheck_passes_for_input_weight_exact_mu_bias_and_sigma(case, name):
    arguments = case.arguments()
    sigma = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    # At integers the bilinear forward has a kink; the right-hand derivative there has a test of its own.
    arguments["mu"].requires_grad_(not (case.integer or case.mixed))
    names = [leaf for leaf in LEAVES if arguments[leaf] is not None and arguments[leaf].requires_grad]

    def function(sigma, *leaves):
        return call({**arguments, **dict(zip(names, leaves, strict=True))}, sigma=sigma, mu_gradient="exact")

    with backend(name):
        assert torch.autograd.gradcheck(function, (sigma, *(arguments[leaf] for leaf in names)), fast_mode=True)


def test_the_hand_written_backward_equals_autograd_through_the_reference_forward():
    from daukit.ops.geometry import Geometry
    from daukit.ops.reference import Reference

    reference = Reference()
    for case in CASES:
        a = case.arguments()
        sigma = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        stride, dilation = (pair(k, a.get(k, 1)) for k in ("stride", "dilation"))
        geo = Geometry.of(
            a["input"], a["weight"], a["unit_ptr"], radius=3, stride=stride, dilation=dilation, groups=case.groups
        )
        tensors = Tensors(a["input"], a["weight"], a["mu"], sigma, bias=None, unit_ptr=a["unit_ptr"])
        output = reference.forward(tensors, geo, compute=torch.float64)
        error = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape)
        sources = (a["input"], a["weight"], a["mu"], sigma)
        if not output.requires_grad:
            output = output + 0 * sigma  # without units nothing is differentiated: every derivative is zero
        expected = torch.autograd.grad(output, sources, error, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            actual = results(reference, error, tensors, geo, mu_gradient="exact")[1:]
        for grad, expected_grad in zip(actual, expected, strict=True):
            torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12, msg=case.name)


def test_the_papers_mu_gradient_is_its_closed_formula():
    # One unit on one impulse: Eq. 16 is w * E * (x / sigma^2) G at the impulse, interpolated around mu.
    sigma, w, mu = 0.5, 1.7, (0.3, -1.25)
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1
    leaf = torch.tensor(mu, dtype=torch.float64).reshape(2, 1, 1, 1).requires_grad_()
    y = dau_conv2d(x, torch.full((1, 1, 1), w, dtype=torch.float64), leaf, sigma=sigma)
    at = (5, 4)
    (grad,) = torch.autograd.grad(y[0, 0, at[0], at[1]], leaf)

    norm = sum(math.exp(-(j * j + i * i) / (2 * sigma**2)) for j in range(-3, 4) for i in range(-3, 4))

    def slope(axis, ty, tx):  # correlation kernel at the offset from the tap to the impulse
        offset = (4 - at[0] - ty, 4 - at[1] - tx)
        return offset[axis] / sigma**2 * math.exp(-(offset[0] ** 2 + offset[1] ** 2) / (2 * sigma**2)) / norm

    fy, fx = 0.3, 0.75
    for axis in (0, 1):
        cell = [(0, -2, 1 - fy, 1 - fx), (0, -1, 1 - fy, fx), (1, -2, fy, 1 - fx), (1, -1, fy, fx)]
        expected = w * sum(ay * ax * slope(axis, ty, tx) for ty, tx, ay, ax in cell)
        assert math.isclose(grad[axis].item(), expected, rel_tol=1e-12)


def test_blur_taps_sum_to_one_and_their_derivatives_are_those_of_the_formula():
    sigma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    taps = blur_taps(sigma, 4)
    assert math.isclose(taps.gaussian.sum().item(), 1, rel_tol=1e-15)
    for i in range(9):
        (expected,) = torch.autograd.grad(taps.gaussian[i], sigma, retain_graph=True)
        assert math.isclose(taps.sigma[i].item(), expected.item(), rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize(("sigma", "radius"), [(0.35, 2), (0.5, 3), (0.8, 4), (1.6, 8), (0.001, 1)])
def test_the_blur_reaches_five_sigma(sigma, radius):
    assert blur_radius(sigma) == radius


@pytest.mark.parametrize(("sigma", "difference"), [(0.5, 3e-8), (0.8, 2e-6)])
def test_the_papers_three_sigma_would_change_the_kernel_by_what_the_docs_say(sigma, difference):
    size = torch.tensor(sigma, dtype=torch.float64)
    wide, narrow = (blur_taps(size, radius).gaussian for radius in (blur_radius(sigma), math.ceil(3 * sigma)))
    margin = (len(wide) - len(narrow)) // 2
    padded = torch.nn.functional.pad(narrow, (margin, margin))
    largest = (torch.outer(wide, wide) - torch.outer(padded, padded)).abs().max().item()
    assert float(f"{largest:.0e}") == difference


def test_dense_in_small_chunks_equals_one_chunk(monkeypatch):
    for name in ("groups", "ragged_groups", "strided_groups", "many_units", "beyond"):
        arguments = BY_NAME[name].arguments()
        whole = gradients(arguments, "dense")
        for budget in (1, 2000):
            monkeypatch.setattr("daukit.ops.filters.CHUNK_BYTES", budget)
            parts = gradients(arguments, "dense")
            torch.testing.assert_close(parts[0], whole[0], rtol=1e-12, atol=1e-12)
            for part, one in zip(parts[1], whole[1], strict=True):
                torch.testing.assert_close(part, one, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["reference", "dense"])
def test_a_non_contiguous_input_gives_the_same_contiguous_output(name):
    arguments = BY_NAME["plain"].arguments()
    strange = arguments["input"].detach().permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    channels_last = arguments["input"].detach().contiguous(memory_format=torch.channels_last)
    with backend(name):
        expected = call(arguments)
        for other in (strange, channels_last):
            assert not other.is_contiguous()
            output = call(arguments, input=other)
            assert output.is_contiguous()
            torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


def test_far_displacements_do_not_blow_memory():
    x, weight = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 2)
    mu = torch.tensor([[1e9, 0.0], [0.0, -3e7]]).reshape(2, 1, 1, 2)
    assert torch.equal(dau_conv2d(x, weight, mu), torch.zeros(1, 1, 8, 8))


BAD = [
    ({"input": torch.zeros(3, 7, 9)}, ValueError, "input must be"),
    ({"input": None}, TypeError, "input must be a tensor"),
    ({"weight": torch.zeros(5, 6)}, ValueError, "weight must be"),
    ({"mu": torch.zeros(2, 5, 3, 3)}, ValueError, "mu must be"),
    ({"mu": torch.zeros(2, 5, 3, 2).double()}, ValueError, "mu .*dtype"),
    ({"mu": torch.full((2, 5, 3, 2), math.nan)}, ValueError, "60 NaN or infinite"),
    ({"bias": torch.zeros(4)}, ValueError, "bias must be"),
    ({"input": torch.zeros(1, 3, 7, 9).double()}, ValueError, "input .*dtype"),
    ({"weight": torch.zeros(5, 3, 2).half()}, ValueError, "weight must be float32"),
    ({"sigma": -0.5}, ValueError, "sigma must be"),
    ({"sigma": math.nan}, ValueError, "sigma must be"),
    ({"sigma": torch.ones(2)}, ValueError, "one element"),
    ({"stride": 0}, ValueError, "stride must be"),
    ({"dilation": (1, 2, 3)}, ValueError, "dilation must be"),
    ({"stride": "2"}, TypeError, "stride must be"),
    ({"dilation": (1.0, 2)}, TypeError, "dilation must be"),
    ({"stride": True}, TypeError, "stride must be"),
    ({"groups": 1.0}, TypeError, "groups must be an integer"),
    ({"sigma": "0.5"}, TypeError, "sigma must be a number"),
    ({"max_displacement": "4"}, TypeError, "max_displacement must be a number"),
    ({"max_displacement": -1}, ValueError, "max_displacement must be"),
    ({"out_channels": 4}, ValueError, "out_channels is 4, but weight"),
    ({"input": torch.zeros(1, 6, 7, 9)}, ValueError, "the weight takes 3 channels, got 6"),
    ({"input": torch.zeros(1, 0, 7, 9)}, ValueError, "in_channels .0. must be"),
    ({"groups": 2}, ValueError, "multiple of groups"),
    ({"mu_gradient": "autograd"}, ValueError, "mu_gradient"),
    ({"unit_ptr": torch.zeros(16, dtype=torch.int32)}, ValueError, "ragged units need"),
]


@pytest.mark.parametrize(("changes", "error", "match"), BAD, ids=[f"{next(iter(c))}-{m[:20]}" for c, _, m in BAD])
def test_a_wrong_argument_gets_one_clear_error(changes, error, match):
    good = {
        "input": torch.zeros(1, 3, 7, 9),
        "weight": torch.zeros(5, 3, 2),
        "mu": torch.zeros(2, 5, 3, 2),
        "bias": None,
    }
    with pytest.raises(error, match=match):
        call({**good, **changes})


@pytest.mark.parametrize("known", ["out_channels", "bias"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("channels", [2, 3, 4, 8, 12])
def test_ragged_units_whose_outputs_are_known_take_their_own_channels_only(channels, groups, known):
    pairs = 4 * 6 // groups
    units = torch.ones(pairs), torch.zeros(2, pairs)
    told = {"out_channels": 4} if known == "out_channels" else {"bias": torch.zeros(4)}
    unit_ptr = torch.arange(pairs + 1, dtype=torch.int32)
    assert dau_conv2d(torch.zeros(1, 6, 5, 5), *units, groups=groups, unit_ptr=unit_ptr, **told).shape[1] == 4
    match = f"take 6 channels, got {channels}" if channels % groups == 0 else "multiple of groups"
    with pytest.raises(ValueError, match=match):
        dau_conv2d(torch.zeros(1, channels, 5, 5), *units, groups=groups, unit_ptr=unit_ptr, **told)


@pytest.mark.parametrize("backend_name", ["reference", "dense", "native"])
@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [0, 2])
def test_an_empty_map_has_an_empty_output_and_no_gradient_in_every_backend(batch, stride, size, backend_name):
    arguments = Case("empty", batch=batch, size=size).arguments(torch.float32)
    leaves = [arguments[name] for name in ("input", "weight", "mu", "bias")]
    with backend(backend_name):
        output = call({**arguments, "stride": stride})
    assert output.shape == (batch, 5, *(-(-side // stride) for side in size))
    for leaf, grad in zip(leaves, torch.autograd.grad(output.sum(), leaves), strict=True):
        assert torch.equal(grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("pointers", [[0, 2, 1, 3], [1, 1, 2, 3], [0, 1, 2, 2]])
def test_unit_pointers_that_do_not_add_up_raise(pointers):
    with pytest.raises(ValueError, match="unit_ptr must rise"):
        dau_conv2d(
            torch.zeros(1, 1, 4, 4),
            torch.zeros(3),
            torch.zeros(2, 3),
            unit_ptr=torch.tensor(pointers, dtype=torch.int32),
        )


def test_an_unavailable_backend_is_refused_by_name():
    with pytest.raises(ValueError, match="'fpga' is not available"), backend("fpga"):
        pass
    assert ops.backends()["dense"] == "available"
