"""The discrete Gaussian of Eq. 3-4 at zero displacement, and its derivatives (docs/math.md, section 2)."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

SIGMA_BOUNDS = (0.1, 1.6)
"""Limits of a learned sigma, in pixels; the authors' implementation has the same."""


class BlurTaps(NamedTuple):
    """1-D taps of length ``2 * radius + 1``; every 2-D kernel used is built of outer products of them.

    ``G = g (x) g``, ``dG/dmu_y = d (x) g``, ``dG/dmu_x = g (x) d``, ``dG/dsigma = s (x) g + g (x) s``.
    """

    gaussian: Tensor
    mu: Tensor
    sigma: Tensor


def blur_radius(sigma: float) -> int:
    """Radius of the blur in taps: ``ceil(5 sigma)``, as the authors' code has it (the paper's text says 3 sigma)."""
    return max(0, math.ceil(5 * sigma - 1e-3))


def blur_taps(sigma: Tensor, radius: int) -> BlurTaps:
    """Discretely normalised Gaussian taps and their derivatives by displacement and by sigma.

    Args:
        sigma: one element, in pixels.
        radius: taps on either side of the centre; 0, without a blur, gives the identity.
    """
    if radius == 0:  # no blur: sigma is 0
        one, zero = sigma.new_ones(1), sigma.new_zeros(1)
        return BlurTaps(one, zero, zero)
    x = torch.arange(-radius, radius + 1, dtype=sigma.dtype, device=sigma.device)
    sigma = sigma.reshape(())
    g = torch.exp(-(x**2) / (2 * sigma**2))
    g = g / g.sum()
    # d/dmu of the normalised Gaussian: the normaliser's own derivative vanishes by symmetry (Eq. 9).
    mu = x / sigma**2 * g
    # d/dsigma: the normaliser contributes the mean of x^2 (Eq. 10).
    second = x**2 / sigma**3 * g
    return BlurTaps(g, mu, second - g * second.sum())


def kept_taps(sigma: Tensor, radius: int) -> BlurTaps:
    """``blur_taps`` of a sigma on the CPU, worked out once for each value: it takes longer than a small layer."""
    return _taps_of(sigma.item(), radius, sigma.dtype)


@functools.lru_cache(maxsize=64)
def _taps_of(sigma: float, radius: int, dtype: torch.dtype) -> BlurTaps:
    with torch.inference_mode(False), torch.no_grad():
        taps = blur_taps(torch.tensor(sigma, dtype=dtype, device="cpu"), radius)
        return BlurTaps(*(tap.contiguous() for tap in taps))
