"""The dense path's precision: TF32 only where it was allowed, half precision only where it was asked for."""

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from bounds import DENSE, results
from cases import CASES

from daukit.ops import backend, dau_conv2d
from daukit.ops.contract import Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_radius
from daukit.ops.precision import convolutions_as_allowed, tf32, tf32_allowed

BY_NAME = {case.name: case for case in CASES}

by_their_new_names = pytest.mark.skipif(torch.__version__ < (2, 9), reason="torch has had these settings since 2.9")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SETTINGS = {
    "convolutions": lambda: torch.backends.cudnn.conv.fp32_precision,
    "recurrent networks": lambda: torch.backends.cudnn.rnn.fp32_precision,
    "matrices": lambda: torch.backends.cuda.matmul.fp32_precision,
    "matrices on the CPU": lambda: torch.backends.mkldnn.matmul.fp32_precision,
    "all": lambda: torch.backends.fp32_precision,
    "convolutions, the old switch": lambda: torch.backends.cudnn.allow_tf32,  # raises where old and new disagree
    "matrices, the old switch": lambda: torch.backends.cuda.matmul.allow_tf32,
    "matrices, the old word": torch.get_float32_matmul_precision,
}


def settings():
    return {name: read() for name, read in SETTINGS.items()}


@pytest.fixture(params=[False, True], ids=["highest", "tf32 allowed"])
def allowed(request):
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if request.param else "ieee"
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


@by_their_new_names
def test_convolutions_on_a_gpu_follow_the_setting_for_matrices(allowed):
    before = torch.backends.cudnn.conv.fp32_precision
    assert tf32_allowed() == allowed
    with convolutions_as_allowed(GPU):
        assert torch.backends.cudnn.conv.fp32_precision == ("tf32" if allowed else "ieee")
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_both_passes_ask_for_that_on_the_device_of_their_input(monkeypatch):
    asked = []
    monkeypatch.setattr("daukit.ops.dispatch.convolutions_as_allowed", lambda on: asked.append(on) or nullcontext())
    a = BY_NAME["plain"].arguments(torch.float32)
    with backend("dense"):
        dau_conv2d(a["input"], a["weight"], a["mu"]).sum().backward()
    assert asked == [CPU, CPU]


@by_their_new_names
def test_no_setting_is_touched_where_no_gpu_is_involved(allowed):
    before = torch.backends.cudnn.conv.fp32_precision
    for inside in (convolutions_as_allowed(CPU), tf32(not allowed, CPU)):
        with inside:
            assert torch.backends.cudnn.conv.fp32_precision == before and tf32_allowed() == allowed


@by_their_new_names
@pytest.mark.parametrize(
    "change", [lambda: convolutions_as_allowed(GPU), lambda: tf32(True, GPU), lambda: tf32(False, GPU)]
)
def test_every_setting_reads_as_before_even_after_an_error(change):
    before = settings()
    with pytest.raises(ValueError, match="inside"), change():
        raise ValueError("inside")
    assert settings() == before


@by_their_new_names
def test_threads_that_are_inside_at_the_same_time_leave_the_setting_as_it_was():
    before, first, second = settings(), convolutions_as_allowed(GPU), convolutions_as_allowed(GPU)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # the second is still at work
    second.__exit__(None, None, None)
    assert settings() == before


def test_an_older_torch_has_one_switch_each(monkeypatch):
    class Switch:
        def __init__(self, allow_tf32):
            self.allow_tf32 = allow_tf32

    monkeypatch.setattr(torch.backends.cuda, "matmul", Switch(False))
    monkeypatch.setattr(torch.backends, "cudnn", Switch(True))
    with convolutions_as_allowed(GPU):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@by_their_new_names
@pytest.mark.slow
def test_torch_exports_after_our_calls_in_many_threads():
    """In a process of its own: what other tests do to torch's settings must not be what is seen."""
    code = """if True:
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import torch, daukit
        sys.setswitchinterval(1e-6)
        layer = daukit.DAUConv2d(2, 3, 2)
        before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.allow_tf32
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: layer(torch.ones(1, 2, 5, 5)).sum().backward(), range(200)))
        assert before == (torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.allow_tf32)
        torch.export.export(torch.nn.Conv2d(2, 3, 3), (torch.ones(2, 2, 5, 5),))
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "stride", "ragged_groups", "dilation"])
def test_convolutions_in_bfloat16_lose_what_their_rounding_says(name, mu_gradient):
    case = BY_NAME[name]
    a = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in case.arguments(torch.float32).items()}
    steps = {k: (v, v) if isinstance(v, int) else v for k, v in {"stride": 1, "dilation": 1, **case.options}.items()}
    geo = Geometry.of(a["input"], a["weight"], a["unit_ptr"], radius=blur_radius(0.5), groups=case.groups, **steps)
    error = torch.ones(geo.batch, geo.out_channels, *geo.out_size)

    def run(image, weight, compute):
        tensors = Tensors(image, weight, a["mu"], torch.tensor(0.5), bias=None, unit_ptr=a["unit_ptr"])
        return results(DENSE, error, tensors, geo, mu_gradient, compute)[:3]

    rounded = run(a["input"], a["weight"], torch.bfloat16)
    exact = run(a["input"], a["weight"], torch.float32)
    sizes = run(a["input"].abs(), a["weight"].abs(), torch.float32)
    # Image, kernel (or output gradient) and result are rounded once each, half a unit in the last place.
    # Sums are float32's, of at most as many products as the image has pixels and channels.
    rounding = (1 + torch.finfo(torch.bfloat16).eps / 2) ** 3 - 1
    summing = a["input"].numel() * torch.finfo(torch.float32).eps
    for result, truth, size in zip(rounded, exact, sizes, strict=True):
        assert result.dtype == torch.float32
        assert ((result - truth).abs() <= (rounding + 2 * summing) * size).all()
    assert not torch.equal(rounded[0], exact[0])
