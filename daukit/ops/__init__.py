"""The operator's public door: arguments are checked here, once; backends below trust them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from daukit.ops import library, registration  # noqa: F401 -- the second registers the operators
from daukit.ops.checks import check_number, check_shapes, check_tensors, pair, refuse_transforms
from daukit.ops.choices import record_choices as record_choices
from daukit.ops.contract import Options, Tensors
from daukit.ops.cuda import tune as tune
from daukit.ops.dispatch import backends as backends
from daukit.ops.flops import count_operators
from daukit.ops.gaussian import dau_conv2d_gaussian as dau_conv2d_gaussian
from daukit.ops.geometry import DEFAULT_LIMIT
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius

MIN_SIGMA = 1e-3
"""Smallest sigma of a blur: below it the blur is the identity in every dtype and its derivative overflows float32."""

DENSE_UNITS = 48
"""Units of a pair, times the stride's area, from which the dense backend is faster on the CPU at a 9x9 window."""

MAX_LIMIT = 2**16
"""Beyond this many pixels a limit of displacements says no more than that there is none."""

MuGradient = Literal["gaussian", "exact"]

# Known before torch.compile traces the door: it cannot follow the loading of a library.
_NATIVE = library.state() == "available"

count_operators()

# A plain global: torch.compile cannot trace a ContextVar, but guards on this.
_backend = "auto"


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
    max_displacement: float | None = None,
    out_channels: int | None = None,
    whole_pixels: bool = False,
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
        sigma: standard deviation of the blur in (dilated) pixels, 0 for none; a tensor of one element when it is
            learned, which must then stay within ``[0.1, 1.6]``.
        stride: step between outputs; output size is ``ceil(size / stride)``.
        dilation: input pixels per pixel of displacement, and between the taps of the bilinear cell and of the blur.
        groups: as in ``torch.nn.functional.conv2d``.
        unit_ptr: ``(out_channels * in_channels // groups + 1,)`` int32; pair ``p = out * (in_channels // groups) + in``
            owns units ``unit_ptr[p]:unit_ptr[p + 1]``. Given exactly when the units are ragged.
        mu_gradient: ``"gaussian"``, the paper's Eq. 16, or ``"exact"``, the derivative of the bilinear forward. Without
            a blur the first one does not exist: mu must then be fixed, or its gradient the exact one.
        max_displacement: dilated pixels within which displacements are expected, 4 by default. Results do not depend on
            it, only times: GPU kernels size their windows by it, because reading displacements would stop the GPU.
        out_channels: for ragged units without a bias, whose shapes do not tell it: with it an input of other channels
            than the units take is an error, without it the output has as many channels as fit.
        whole_pixels: True where all displacements are whole. Results do not depend on it: ``torch.utils.flop_counter``
            then counts one multiply-add per unit and output pixel, as kernels for such displacements need, not four.

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
    if has_torch_function((input, weight, mu, bias)):  # as torch.fx traces it
        traced: Tensor = handle_torch_function(
            dau_conv2d, (input, weight, mu, bias), input, weight, mu, bias, sigma=sigma, stride=stride,
            dilation=dilation, groups=groups, unit_ptr=unit_ptr, mu_gradient=mu_gradient,
            max_displacement=max_displacement, out_channels=out_channels, whole_pixels=whole_pixels,
        )  # fmt: skip
        return traced
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    check_tensors(input, weight, mu, bias, unit_ptr)
    check_shapes(input, weight, mu, bias, groups, unit_ptr, out_channels)
    if mu_gradient not in ("gaussian", "exact"):
        raise ValueError(f'mu_gradient must be "gaussian" or "exact", got {mu_gradient!r}')
    if not isinstance(whole_pixels, bool):
        raise TypeError(f"whole_pixels must be True or False, got {type(whole_pixels).__name__} {whole_pixels!r}")
    sigma_tensor, radius = _sigma(sigma, mu)
    if radius == 0 and mu_gradient == "gaussian" and mu.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            'without a blur (sigma=0) the gradient of Eq. 16, mu_gradient="gaussian", does not exist; '
            'fix the displacements with mu.requires_grad_(False), or take mu_gradient="exact"'
        )
    limit = _limit(max_displacement)
    refuse_transforms(input, weight, mu, sigma_tensor, bias)
    if not input.is_meta and torch.is_autocast_enabled(input.device.type):
        input = input.to(torch.get_autocast_dtype(input.device.type))
    if not torch.compiler.is_compiling():
        count_operators()
    tensors = Tensors(input=input, weight=weight, mu=mu, sigma=sigma_tensor, bias=bias, unit_ptr=unit_ptr)
    options = Options(
        radius=radius,
        stride=stride,
        dilation=dilation,
        groups=groups,
        limit=limit,
        mu_gradient=mu_gradient,
        backend=choose_backend(input, weight, unit_ptr, stride),
        whole_pixels=whole_pixels,
    )
    output: Tensor = torch.ops.daukit.dau_conv2d(*tensors, *options)
    return output


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run ``dau_conv2d`` inside the ``with`` block on one backend, in all threads; ``"auto"`` is the automatic choice.

    Raises:
        ValueError: no backend of that name is available.
    """
    global _backend
    if name != "auto" and backends().get(name) != "available":
        raise ValueError(f"backend {name!r} is not available; daukit.ops.backends() says {backends()}")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def choose_backend(input: Tensor, weight: Tensor, unit_ptr: Tensor | None, stride: tuple[int, int]) -> str:
    """The cost rule of docs/performance.md: it knows shapes only, so that torch.compile sees a constant."""
    if _backend != "auto":
        return _backend
    if input.device.type == "cuda":
        return "auto"  # decided inside the operator: it depends on the card
    if not _NATIVE or input.device.type != "cpu" or weight.dtype != torch.float32:
        return "dense"
    units = weight.shape[2] if unit_ptr is None else weight.shape[0] / (unit_ptr.shape[0] - 1)
    return "native" if units * stride[0] * stride[1] < DENSE_UNITS else "dense"


def _limit(max_displacement: float | None) -> int:
    """The limit of displacements as a whole number of pixels, static for torch.compile."""
    if max_displacement is None:
        return DEFAULT_LIMIT
    check_number("max_displacement", max_displacement, " of pixels or None")
    if not max_displacement >= 0:
        raise ValueError(f"max_displacement must be None or at least 0, got {max_displacement}")
    return math.ceil(min(max_displacement, MAX_LIMIT))


def _sigma(sigma: float | Tensor, mu: Tensor) -> tuple[Tensor, int]:
    """Sigma as a tensor, and the blur's radius: static, so a learned sigma takes that of its upper bound."""
    if isinstance(sigma, Tensor):
        if sigma.numel() != 1 or sigma.dtype != mu.dtype or sigma.device != mu.device:
            raise ValueError(
                f"a learned sigma must hold one element of mu's dtype and device ({mu.dtype}, {mu.device}), "
                f"got shape {tuple(sigma.shape)}, {sigma.dtype}, {sigma.device}"
            )
        return sigma, blur_radius(SIGMA_BOUNDS[1])
    check_number("sigma", sigma, " of pixels, or a tensor of one element")
    if not (sigma == 0 or MIN_SIGMA <= sigma < math.inf):
        raise ValueError(f"sigma must be 0, for no blur, or finite and at least {MIN_SIGMA} pixels, got {sigma}")
    return mu.new_full((), sigma), blur_radius(sigma)
