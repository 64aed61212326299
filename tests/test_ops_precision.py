"""The dense path's precision: TF32 only where it was allowed, half precision only where it was asked for."""

import pytest
import torch
from cases import CASES
from torch.nn import functional as F

from daukit.ops import backend, dau_conv2d, dense
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_radius
from daukit.ops.precision import convolutions_as_allowed, tf32_allowed

BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(params=[False, True], ids=["highest", "tf32 allowed"])
def allowed(request, monkeypatch):
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if request.param else "ieee"
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


def test_convolutions_follow_the_setting_for_matrices_inside_the_operator_and_their_own_outside(allowed, monkeypatch):
    seen, convolve = [], F.conv2d

    def note(*arguments, **options):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return convolve(*arguments, **options)

    monkeypatch.setattr(F, "conv2d", note)
    before = torch.backends.cudnn.conv.fp32_precision
    assert tf32_allowed() == allowed
    a = BY_NAME["plain"].arguments(torch.float32)
    with backend("dense"):
        output = dau_conv2d(a["input"], a["weight"], a["mu"])
        forwards = len(seen)
        output.sum().backward()
    assert 0 < forwards < len(seen) and set(seen) == {"tf32" if allowed else "ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_the_setting_is_restored_after_an_error(allowed):
    before = torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(ValueError, match="inside"), convolutions_as_allowed():
        raise ValueError("inside")
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_an_older_torch_has_one_switch_each(monkeypatch):
    class Switch:
        def __init__(self, allow_tf32):
            self.allow_tf32 = allow_tf32

    monkeypatch.setattr(torch.backends.cuda, "matmul", Switch(False))
    monkeypatch.setattr(torch.backends, "cudnn", Switch(True))
    with convolutions_as_allowed():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "stride", "ragged_groups", "dilation"])
def test_convolutions_in_bfloat16_lose_what_their_rounding_says(name, mu_gradient):
    case = BY_NAME[name]
    a = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in case.arguments(torch.float32).items()}
    steps = {k: (v, v) if isinstance(v, int) else v for k, v in {"stride": 1, "dilation": 1, **case.options}.items()}
    geo = Geometry.of(a["input"], a["weight"], a["unit_ptr"], radius=blur_radius(0.5), groups=case.groups, **steps)
    sigma, needs = torch.tensor(0.5), (True, True, False, False)

    def run(image, weight, compute):
        output = dense.forward(image, weight, a["mu"], sigma, None, a["unit_ptr"], geo, compute)
        error = torch.ones_like(output)
        grads = dense.backward(error, image, weight, a["mu"], sigma, a["unit_ptr"], geo, mu_gradient, needs, compute)
        return output, grads[0], grads[1]

    rounded = run(a["input"], a["weight"], torch.bfloat16)
    exact = run(a["input"], a["weight"], None)
    sizes = run(a["input"].abs(), a["weight"].abs(), None)
    # Image, kernel (or output gradient) and result are rounded once each, half a unit in the last place.
    # Sums are float32's, of at most as many products as the image has pixels and channels.
    rounding = (1 + torch.finfo(torch.bfloat16).eps / 2) ** 3 - 1
    summing = a["input"].numel() * torch.finfo(torch.float32).eps
    for result, truth, size in zip(rounded, exact, sizes, strict=True):
        assert result.dtype == torch.float32
        assert ((result - truth).abs() <= (rounding + 2 * summing) * size).all()
    assert not torch.equal(rounded[0], exact[0])
