"""The operator on a real GPU: ``make test-gpu``. What the emulator cannot show is shown here."""

import contextlib
import subprocess
import sys
import warnings

import pytest
import torch
from bounds import LEAVES, spectral_bounds, truth_and_bounds
from cases import CASES, UNBLURRED
from test_launches_unblurred import check
from test_ops_oracle import NAMES, assert_close, load_case

from daukit.nn import DAUConv2d
from daukit.ops import backend, backends, dau_conv2d, dispatch

pytestmark = pytest.mark.cuda
DEVICE = "cuda"
BY_NAME = {case.name: case for case in CASES}
WAYS = ["cuda", *dispatch.NEAR]


def on_gpu(arguments):
    """Leaves and pointers on the GPU."""
    return {
        k: v.detach().to(DEVICE).requires_grad_(v.requires_grad) if isinstance(v, torch.Tensor) else v
        for k, v in arguments.items()
    }


@pytest.fixture
def way(request, monkeypatch):
    """One of the ways that "auto" may choose, chosen."""
    monkeypatch.setattr(dispatch, "cheapest", lambda *_: request.param)
    return request.param


@contextlib.contextmanager
def waiting_is_an_error():
    """An error at whatever waits for the GPU. torch warns that this is new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_kernels_are_available():
    assert backends()["cuda"] == "available"


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_gradients_stay_within_the_bound_of_their_operation_count(case, mu_gradient):
    arguments = case.arguments(torch.float32)
    there = on_gpu(arguments)
    sigma = torch.tensor(case.sigma, device=DEVICE, requires_grad=True)
    leaves = [there[name] for name in LEAVES if there[name] is not None]
    with backend("cuda"):
        output = dau_conv2d(**{**there, "sigma": sigma, "mu_gradient": mu_gradient})
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    grads = torch.autograd.grad(output, [*leaves, sigma], error.to(DEVICE))
    exact, bounds, _ = truth_and_bounds(case, arguments, error, mu_gradient, learned=True)
    results = {"output": output, **dict(zip(LEAVES[:3], grads[:3], strict=True)), "sigma": grads[-1]}
    for (name, result), expected, bound in zip(results.items(), exact, bounds, strict=True):
        excess = (result.detach().cpu().double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "groups", "stride", "ragged_groups", "far"])
@pytest.mark.parametrize("way", list(dispatch.NEAR), indirect=True)
def test_filters_of_near_units_stay_within_their_bounds(way, name, mu_gradient):
    case = BY_NAME[name]
    arguments = case.arguments(torch.float32)
    there = on_gpu(arguments)
    leaves = [there[leaf] for leaf in LEAVES[:3]]
    output = dau_conv2d(**{**there, "mu_gradient": mu_gradient})
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    grads = torch.autograd.grad(output, leaves, error.to(DEVICE))
    exact, bounds, _ = truth_and_bounds(case, arguments, error, mu_gradient, learned=False)
    if way == "spectral":
        bounds = spectral_bounds(case, arguments, error, mu_gradient, learned=False)
    for result, expected, bound in zip((output, *grads), exact, bounds, strict=False):
        assert ((result.detach().cpu().double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("frozen", [False, True], ids=["mu learned", "mu frozen"])
@pytest.mark.parametrize("case", UNBLURRED, ids=lambda case: case.name)
def test_without_a_blur_they_stay_within_it_too(case, frozen):
    check(case, frozen, DEVICE)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_parameter_gradients_match_the_authors_oracle(name):
    case = {k: v.to(DEVICE) for k, v in load_case(name, "native").items()}
    x, weight = case["x"].requires_grad_(), case["weights"].contiguous().requires_grad_()
    mu = torch.stack([case["mu2"], case["mu1"]]).requires_grad_()
    with backend("cuda"):
        y = dau_conv2d(x, weight, mu, sigma=case["sigma"].flatten()[0].item())
    grad_weight, grad_mu = torch.autograd.grad(y, [weight, mu], case["grad_y"])
    assert_close(y, case["y"])
    assert_close(grad_weight, case["grad_w"])
    assert_close(grad_mu[0], case["grad_mu2"])
    assert_close(grad_mu[1], case["grad_mu1"])


@pytest.mark.parametrize("name", ["plain", "ragged_groups", "uneven_stride_dilation"])
def test_gradcheck_passes_in_float64_on_the_gpu(name):
    a = on_gpu(BY_NAME[name].arguments())

    def function(*leaves):
        return dau_conv2d(**{**a, **dict(zip(LEAVES, leaves, strict=True)), "mu_gradient": "exact"})

    assert torch.autograd.gradcheck(function, tuple(a[leaf] for leaf in LEAVES), fast_mode=True, nondet_tol=1e-10)


# As in test_ops_torch.py: torch hides what it says there, which an error cannot be.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("name", ["plain", "ragged_groups"])
def test_opcheck_accepts_both_operators(name):
    case = BY_NAME[name]
    a = on_gpu(case.arguments(torch.float32))
    sigma = torch.tensor(0.5, device=DEVICE, requires_grad=True)
    options = (3, (a.get("stride", 1),) * 2, (1, 1), case.groups, 4, "gaussian", "cuda")
    arguments = (a["input"], a["weight"], a["mu"], sigma, a["bias"], a["unit_ptr"], *options)
    torch.library.opcheck(torch.ops.daukit.dau_conv2d.default, arguments)
    with torch.no_grad():
        error = torch.ones_like(torch.ops.daukit.dau_conv2d(*arguments))
    leaves = [t if t is None else t.detach() for t in (a["input"], a["weight"], a["mu"], sigma, a["unit_ptr"])]
    torch.library.opcheck(torch.ops.daukit.dau_conv2d_backward.default, (error, *leaves, *options, [True] * 5))


def layer_and_image():
    torch.manual_seed(0)
    return DAUConv2d(3, 5, 2).to(DEVICE), torch.randn(2, 3, 17, 19, device=DEVICE)


def values_and_gradients(function, layer, x):
    output = function(x)
    return output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))


@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's own, of its compiler
def test_a_compiled_layer_computes_the_same():
    layer, x = layer_and_image()
    for actual, expected in zip(
        values_and_gradients(torch.compile(layer, fullgraph=True), layer, x),
        values_and_gradients(layer, layer, x),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


HALF_AND_TF32 = [
    ("cuda", torch.float32, False), ("dense", torch.bfloat16, False), ("dense", torch.float32, True),
    ("spectral", torch.float32, False), ("spectral", torch.bfloat16, False),
]  # fmt: skip


@contextlib.contextmanager
def precision(tf32):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("way", "dtype", "tf32"), HALF_AND_TF32, indirect=["way"])
def test_nothing_waits_for_the_gpu(way, dtype, tf32):
    layer, x = layer_and_image()
    x = x.to(dtype)
    with precision(tf32):
        values_and_gradients(layer, layer, x)  # the first call compiles and loads
        with waiting_is_an_error():
            values_and_gradients(layer, layer, x)


@pytest.mark.parametrize(("way", "dtype", "tf32"), HALF_AND_TF32, indirect=["way"])
def test_a_captured_graph_computes_with_the_values_of_its_replay(way, dtype, tf32):
    layer, x = layer_and_image()
    x = x.to(dtype)
    with precision(tf32):
        values_and_gradients(layer, layer, x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = values_and_gradients(layer, layer, x)
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
            layer.mu.add_(0.25)
        graph.replay()
        expected = values_and_gradients(layer, layer, x)
    # Filters are made with index_add, which adds in any order, and what they give is rounded to the image's dtype.
    tolerance = (
        0 if way == "cuda" else 4 * torch.finfo(dtype if dtype != torch.float32 or not tf32 else torch.bfloat16).eps
    )
    for actual, one in zip(captured, expected, strict=True):
        assert (actual - one).abs().max() <= tolerance * one.abs().max()


def test_kernels_run_on_the_current_stream():
    layer, x = layer_and_image()
    expected = layer(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # what is queued elsewhere would now run first
        y = layer(x.mul(2).div(2))
    stream.synchronize()
    assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_what_half_precision_images_give(dtype):
    layer, x = layer_and_image()
    with backend("cuda"):
        with torch.autocast(DEVICE, dtype):
            output = layer(x)
        assert output.dtype == dtype and torch.equal(output, layer(x.to(dtype)))


def test_wrong_pointers_are_asserted_on_the_device():
    code = (
        "import torch; from daukit.ops import dau_conv2d; ones = lambda *s: torch.ones(*s, device='cuda'); "
        "dau_conv2d(ones(1, 1, 8, 8), ones(2), ones(2, 2), unit_ptr=torch.tensor([0, 9], device='cuda').int()); "
        "torch.cuda.synchronize()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "device-side assert" in done.stdout + done.stderr
