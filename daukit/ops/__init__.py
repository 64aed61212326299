"""The operator's public door: arguments are checked here, once; backends below trust them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from daukit.ops.gaussian import dau_conv2d_gaussian as dau_conv2d_gaussian
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius
from daukit.ops.registration import BACKENDS

MIN_SIGMA = 1e-3
"""Smallest fixed sigma: below it the blur is the identity in every dtype and its derivative overflows float32."""

MuGradient = Literal["gaussian", "exact"]

_backend: ContextVar[str] = ContextVar("daukit_backend", default="auto")


def dau_conv2d(
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    bias: Tensor | None = None,
    *,
    sigma: float | Tensor = 0.5,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    unit_ptr: Tensor | None = None,
    mu_gradient: MuGradient = "gaussian",
) -> Tensor:
    """Convolve with displaced aggregation units (paper, Eq. 13-14).

    Each unit reads the Gaussian-blurred input at its own learned displacement:
    ``out[n, o, p] = bias[o] + sum_c sum_u weight[o, c, u] * B[n, c, stride * p + dilation * mu[:, o, c, u]]``, where
    ``B`` is the input blurred by the discretely normalised Gaussian, read bilinearly, and zero outside the image.

    Args:
        input: ``(batch, in_channels, height, width)``.
        weight: ``(out_channels, in_channels // groups, units)``; ragged: ``(total_units,)``.
        mu: ``(2, out_channels, in_channels // groups, units)``, displacement (y, x) in dilated pixels; ragged:
            ``(2, total_units)``. Any size; must be finite.
        bias: ``(out_channels,)``.
        sigma: standard deviation of the blur in (dilated) pixels; a tensor of one element when it is learned,
            which must then stay within ``[0.1, 1.6]``.
        stride: step between outputs; output size is ``ceil(size / stride)``.
        dilation: spread of displacements, bilinear cell and blur taps.
        groups: as in ``torch.nn.functional.conv2d``.
        unit_ptr: ``(out_channels * in_channels // groups + 1,)`` int32; pair ``p = out * (in_channels // groups) + in``
            owns units ``unit_ptr[p]:unit_ptr[p + 1]``. Given exactly when the units are ragged.
        mu_gradient: ``"gaussian"``, the paper's Eq. 16, or ``"exact"``, the derivative of the bilinear forward.

    Returns:
        ``(batch, out_channels, ceil(height / stride), ceil(width / stride))`` in the input's dtype, contiguous.

    Raises:
        ValueError: a shape, dtype or value that breaks a rule above.
        TypeError: an argument of the wrong type.
        RuntimeError: forward-mode AD or a ``torch.func`` transform, which the operator does not support.

    Example:
        >>> dau_conv2d(torch.rand(1, 3, 8, 8), torch.rand(4, 3, 2), torch.zeros(2, 4, 3, 2)).shape
        torch.Size([1, 4, 8, 8])
    """
    stride, dilation = _pair("stride", stride), _pair("dilation", dilation)
    _check_tensors(input, weight, mu, bias, unit_ptr)
    _check_shapes(input, weight, mu, bias, groups, unit_ptr)
    if mu_gradient not in ("gaussian", "exact"):
        raise ValueError(f'mu_gradient must be "gaussian" or "exact", got {mu_gradient!r}')
    sigma_tensor, radius = _sigma(sigma, mu)
    _refuse_transforms(input, weight, mu, sigma_tensor, bias)
    if torch.is_autocast_enabled(input.device.type):
        input = input.to(torch.get_autocast_dtype(input.device.type))
    output: Tensor = torch.ops.daukit.dau_conv2d(
        input,
        weight,
        mu,
        sigma_tensor,
        bias,
        unit_ptr,
        radius,
        stride,
        dilation,
        groups,
        mu_gradient,
        _choose_backend(),
    )
    return output


def backends() -> dict[str, str]:
    """Every backend by name, each "available" or "unavailable: why"."""
    return dict(BACKENDS)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run ``dau_conv2d`` inside the ``with`` block on one backend; ``"auto"`` is the automatic choice.

    Raises:
        ValueError: no backend of that name is available.
    """
    if name != "auto" and BACKENDS.get(name) != "available":
        raise ValueError(f"backend {name!r} is not available; daukit.ops.backends() says {BACKENDS}")
    token = _backend.set(name)
    try:
        yield
    finally:
        _backend.reset(token)


def _choose_backend() -> str:
    name = _backend.get()
    return "dense" if name == "auto" else name


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive integer or two of them, got {value!r}")
    return pair[0], pair[1]


def _check_tensors(input: Tensor, weight: Tensor, mu: Tensor, bias: Tensor | None, unit_ptr: Tensor | None) -> None:
    named = {"input": input, "weight": weight, "mu": mu, "bias": bias, "unit_ptr": unit_ptr}
    for name, tensor in named.items():
        if tensor is None and name in ("bias", "unit_ptr"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device} but input is on {input.device}; move one of them")
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"weight must be float32 or float64, got {weight.dtype}; only the input may be half or bfloat16"
        )
    for name, tensor in (("mu", mu), ("bias", bias)):
        if tensor is not None and tensor.dtype != weight.dtype:
            raise ValueError(f"{name} ({tensor.dtype}) must have the dtype of weight ({weight.dtype})")
    if input.dtype not in (weight.dtype, torch.float16, torch.bfloat16):
        raise ValueError(
            f"input ({input.dtype}) must have the dtype of weight ({weight.dtype}), or be half or bfloat16"
        )


def _check_shapes(
    input: Tensor, weight: Tensor, mu: Tensor, bias: Tensor | None, groups: int, unit_ptr: Tensor | None
) -> None:
    if input.dim() != 4:
        raise ValueError(f"input must be (batch, in_channels, height, width), got shape {tuple(input.shape)}")
    in_channels = input.shape[1]
    if groups < 1 or in_channels < 1 or in_channels % groups:
        raise ValueError(f"in_channels ({in_channels}) must be divisible by groups ({groups})")
    inputs = in_channels // groups
    if unit_ptr is None:
        if weight.dim() != 3 or weight.shape[1] != inputs:
            raise ValueError(
                f"weight must be (out_channels, {inputs}, units) for in_channels {in_channels} and groups {groups}, "
                f"got {tuple(weight.shape)}; ragged units need unit_ptr"
            )
        out_channels = weight.shape[0]
    else:
        if weight.dim() != 1 or unit_ptr.dim() != 1 or unit_ptr.dtype != torch.int32:
            raise ValueError(
                "ragged units need weight (total_units,) and unit_ptr (pairs + 1,) int32, "
                f"got {tuple(weight.shape)} and {tuple(unit_ptr.shape)} {unit_ptr.dtype}"
            )
        pairs = unit_ptr.shape[0] - 1
        if pairs < 1 or pairs % inputs:
            raise ValueError(
                f"unit_ptr has {pairs} pairs, which is not out_channels times in_channels / groups ({inputs})"
            )
        out_channels = pairs // inputs
    if mu.shape != (2, *weight.shape):
        raise ValueError(f"mu must be (2, *weight.shape) = {(2, *weight.shape)}, got {tuple(mu.shape)}")
    if out_channels < 1 or out_channels % groups:
        raise ValueError(f"out_channels ({out_channels}) must be divisible by groups ({groups})")
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"bias must be (out_channels,) = ({out_channels},), got {tuple(bias.shape)}")


def _sigma(sigma: float | Tensor, mu: Tensor) -> tuple[Tensor, int]:
    """Sigma as a tensor, and the blur's radius: static, so a learned sigma takes that of its upper bound."""
    if isinstance(sigma, Tensor):
        if sigma.numel() != 1 or sigma.dtype != mu.dtype or sigma.device != mu.device:
            raise ValueError(
                f"a learned sigma must hold one element of mu's dtype and device ({mu.dtype}, {mu.device}), "
                f"got shape {tuple(sigma.shape)}, {sigma.dtype}, {sigma.device}"
            )
        return sigma, blur_radius(SIGMA_BOUNDS[1])
    if not (math.isfinite(sigma) and sigma >= MIN_SIGMA):
        raise ValueError(f"sigma must be finite and at least {MIN_SIGMA} pixels, got {sigma}")
    return mu.new_full((), sigma), blur_radius(sigma)


def _refuse_transforms(*tensors: Tensor | None) -> None:
    """Forward-mode AD and functorch would silently give wrong derivatives, so they stop here."""
    if torch.compiler.is_compiling():
        return
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError("dau_conv2d does not support torch.func transforms (grad, vmap, jvp); use torch.autograd")
    if forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    ):
        raise RuntimeError(
            "dau_conv2d does not support forward-mode AD; use reverse mode (backward, torch.autograd.grad)"
        )
