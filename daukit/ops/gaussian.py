"""The general form, Eq. 2-10: a dense filter of displaced Gaussians, each with its own learned sigma."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.ops.checks import check_integer, check_shapes, check_tensors, pair
from daukit.ops.units import check_finite, check_pointers, unit_list


def dau_conv2d_gaussian(
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    bias: Tensor | None = None,
    *,
    window: int,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    unit_ptr: Tensor | None = None,
    out_channels: int | None = None,
) -> Tensor:
    """Convolve with ``W = sum_k weight_k G(mu_k, sigma_k)``, one Gaussian per unit, discretised on a window (Eq. 2-4).

    Autograd through it gives Eq. 5-10: exact gradients for all four of weight, mu, sigma and input.

    Args:
        input: ``(batch, in_channels, height, width)``; zero outside.
        weight: ``(out_channels, in_channels // groups, units)``; ragged: ``(total_units,)``.
        mu: ``(2, *weight.shape)``, displacement (y, x) from the window's centre in dilated pixels.
        sigma: shaped like ``weight``, pixels, positive.
        bias: ``(out_channels,)``.
        window: odd side of the square filter; every Gaussian is normalised to sum 1 on it, also where it leans out.
        stride: step between outputs.
        dilation: input pixels between the window's taps.
        groups: as in ``torch.nn.functional.conv2d``.
        unit_ptr: as in ``dau_conv2d``.
        out_channels: as in ``dau_conv2d``.

    Returns:
        ``(batch, out_channels, ceil(height / stride), ceil(width / stride))``.

    Raises:
        ValueError: the window is not a positive odd number, a sigma is not positive, or an argument breaks a rule of
            ``dau_conv2d``.
    """
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    check_tensors(input, weight, mu, bias, unit_ptr)
    check_shapes(input, weight, mu, bias, groups, unit_ptr, out_channels)
    check_integer("window", window)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be a positive odd number, got {window}")
    if not isinstance(sigma, Tensor):
        raise TypeError(f"sigma must be a tensor, one element a unit, got {type(sigma).__name__}")
    if sigma.shape != weight.shape or sigma.dtype != weight.dtype:
        raise ValueError(
            f"sigma must be like weight {tuple(weight.shape)} {weight.dtype}, got {tuple(sigma.shape)} {sigma.dtype}"
        )
    if not (torch.compiler.is_compiling() or mu.is_meta):
        check_pointers(weight, unit_ptr)
        check_finite(mu)
        if not bool((sigma > 0).all()):
            raise ValueError("sigma must be positive for every unit")
    padding = (dilation[0] * (window // 2), dilation[1] * (window // 2))
    # In the parameters' dtype, as the efficient form is: displacements need its digits.
    with torch.autocast("cpu" if input.is_meta else input.device.type, enabled=False):
        kernel = _kernel(weight, mu, sigma, window, input.shape[1] // groups, unit_ptr)
        output = F.conv2d(_with_pixels(input).to(kernel.dtype), kernel, bias, stride, padding, dilation, groups)
    height, width = (-(-size // step) for size, step in zip(input.shape[2:], stride, strict=True))
    return output[:, :, :height, :width].to(input.dtype)


def _with_pixels(image: Tensor) -> Tensor:
    """The image (N, C, H, W), padded to one pixel where it has none: torch's convolution refuses an empty one."""
    height, width = image.shape[2:]
    return image if height and width else F.pad(image, (0, int(not width), 0, int(not height)))


def _kernel(
    weight: Tensor, mu: Tensor, sigma: Tensor, window: int, in_channels: int, unit_ptr: Tensor | None
) -> Tensor:
    """Dense filters: (O, C / groups, window, window)."""
    x = torch.arange(window, dtype=mu.dtype, device=mu.device) - window // 2
    # The Gaussian and its normaliser (Eq. 3-4) are separable; softmax is exp over its sum, without underflow.
    along = torch.softmax(-((x - mu[..., None]) ** 2) / (2 * sigma[..., None] ** 2), dim=-1)  # (2, *weight, window)
    rows, columns = weight[..., None] * along[0], along[1]
    if unit_ptr is None:
        return rows.transpose(-1, -2) @ columns  # (O, C, window, K) @ (O, C, K, window)
    owner = unit_list(weight, mu, unit_ptr).pair
    flat = weight.new_zeros(unit_ptr.numel() - 1, window * window)
    units = (rows[:, :, None] * columns[:, None, :]).flatten(1)  # (U, window * window)
    return flat.index_add(0, owner, units).reshape(-1, in_channels, window, window)
