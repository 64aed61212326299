"""Filters at whole pixels: the pixel of every unit, and the weights that come nearest to the filter as it was.

All filters of this file have equally many units, (filters, units), and all numbers are float64.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from daukit.snapping.kernels import Autocorrelation

Target = Literal["best", "nearest"]

_SWEEPS = 20
"""Times that every unit may look for a better pixel; four or five are enough until none finds one."""

_CUT = 1e-9
"""Eigenvalues of normal equations below this share of the largest count as zero: wide kernels that nearly agree."""

_RIDGE = 1e-10
"""Keeps the equations of a search solvable, as a share of a kernel's norm squared."""

_SEARCHED = 64
"""Units of a filter up to which they look for the best pixel, which takes a time with the fifth power of them."""

_TAKEN = 1e-6
"""A pixel whose kernel is this close to those of the filter's other units, as a share of its norm squared, is taken."""


class Snapped(NamedTuple):
    """Units of filters at whole pixels.

    Attributes:
        pixel: (2, filters, units), whole numbers.
        weight: (filters, units), refitted; 0 where ``keep`` is False.
        keep: (filters, units); False for a unit that is merged into an earlier one of its filter on the same pixel.
    """

    pixel: Tensor
    weight: Tensor
    keep: Tensor


def snap_filters(
    weight: Tensor, mu: Tensor, blur: Autocorrelation, *, to: Target = "best", limit: float | None = None
) -> Snapped:
    """Move units to whole pixels and refit their weights, filter by filter, in closed form.

    The weights minimise ``|| sum_k w_k G(mu_k) - sum_k v_k G(pixel_k) ||^2``, where ``G(mu)`` is the blurred bilinear
    cell at ``mu``.

    Args:
        weight: (filters, units).
        mu: (2, filters, units), dilated pixels.
        blur: of the layer.
        to: ``"nearest"`` pixel, or of the 3x3 pixels around that the ``"best"``: one unit after another takes the one
            that leaves the least error, until none finds a better one; no two take the same. In filters of more than 64
            units, whose search would take too long, all go to the nearest pixel.
        limit: largest whole displacement of an axis.
    """
    pixel = nearest(mu, limit)
    if to == "best" and weight.shape[1] <= _SEARCHED:
        pixel = _search(weight, mu, pixel, blur, math.inf if limit is None else limit)
    keep = ~_repeated(pixel)
    gram, right = _system(weight, mu, pixel, blur, keep)
    inverse = torch.linalg.pinv(gram, rtol=_CUT, hermitian=True)  # the least weights where several are as good
    return Snapped(pixel, (inverse @ right[..., None])[..., 0] * keep, keep)


def nearest(mu: Tensor, limit: float | None) -> Tensor:
    """The whole pixels nearest to ``mu`` within ``limit``; of two that are equally near, the even one."""
    pixel = mu.round()
    return pixel if limit is None else pixel.clamp(-math.floor(limit), math.floor(limit))


def squared_errors(
    weight: Tensor, mu: Tensor, new: Tensor, pixel: Tensor, blur: Autocorrelation
) -> tuple[Tensor, Tensor]:
    """|| change ||^2 of every filter, from units ``weight`` at ``mu`` to ``new`` at ``pixel``, and || filter ||^2."""
    norm = _form(weight, blur.cells(mu[..., :, None], mu[..., None, :]), weight)
    cross = _form(weight, blur.cell_and_pixel(mu[..., :, None], pixel[..., None, :]), new)
    after = _form(new, blur.pixels(pixel[..., :, None], pixel[..., None, :]), new)
    return (norm - 2 * cross + after).clamp(min=0), norm


def _form(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """left^T matrix right of every filter."""
    return torch.einsum("fi,fij,fj->f", left, matrix, right)


def _repeated(pixel: Tensor) -> Tensor:
    """True for a unit that an earlier one of its filter shares a pixel with."""
    same = (pixel[..., :, None] == pixel[..., None, :]).all(0)  # (filters, units, units)
    return same.tril(-1).any(-1)


def _system(weight: Tensor, mu: Tensor, pixel: Tensor, blur: Autocorrelation, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The normal equations (filters, units, units), (filters, units); a unit not kept has weight 0."""
    right = torch.einsum("fk,fkj->fj", weight, blur.cell_and_pixel(mu[..., :, None], pixel[..., None, :]))
    gram = blur.pixels(pixel[..., :, None], pixel[..., None, :])
    both = keep[:, :, None] & keep[:, None, :]
    return gram * both + torch.diag_embed((~keep).to(gram.dtype)), right * keep


def _search(weight: Tensor, mu: Tensor, pixel: Tensor, blur: Autocorrelation, limit: float) -> Tensor:
    """Pixels from which no single unit finds a better one."""
    start, pixel = pixel, pixel.clone()
    steps = torch.cartesian_prod(*2 * [torch.arange(-1, 2)]).T.to(mu)  # (2, 9)
    least = 1e-9 * _form(weight, blur.cells(mu[..., :, None], mu[..., None, :]), weight)  # less is rounding
    open_filters = torch.arange(weight.shape[0])
    for _ in range(_SWEEPS):
        moved = torch.zeros(open_filters.numel(), dtype=torch.bool)
        for unit in range(weight.shape[1]):
            here = pixel[:, open_filters]
            choices = start[:, open_filters, unit, None] + steps[:, None]  # (2, filters, 9)
            gain = _gains(weight[open_filters], mu[:, open_filters], here, unit, choices, blur)
            gain[(choices.abs() > limit).any(0)] = -math.inf
            now = (choices == here[:, :, unit, None]).all(0)
            best, at = gain.max(1)
            better = best > torch.where(now, gain, -math.inf).amax(1) + least[open_filters]
            found = choices.gather(2, at.expand(2, -1)[..., None])[..., 0]
            pixel[:, open_filters, unit] = torch.where(better, found, here[..., unit])
            moved |= better
        open_filters = open_filters[moved]
        if not open_filters.numel():
            break
    return pixel


def _gains(weight: Tensor, mu: Tensor, pixel: Tensor, unit: int, choices: Tensor, blur: Autocorrelation) -> Tensor:
    """How much less || error ||^2 is left with ``unit`` on each of its ``choices`` than without it: (filters, choices).

    What the other units' kernels span is projected out of a choice's kernel; minus infinity where nothing is left.
    """
    others = [k for k in range(weight.shape[1]) if k != unit]
    rest = pixel[..., others]  # (2, filters, units - 1)
    keep = ~_repeated(rest)
    gram, right = _system(weight, mu, rest, blur, keep)
    near = blur.pixels(choices[..., :, None], rest[..., None, :]) * keep[:, None]  # (filters, choices, units - 1)
    height = blur.pixels(*2 * [mu.new_zeros(2)])
    projected = near @ torch.linalg.inv(gram + _RIDGE * height * torch.eye(len(others), dtype=gram.dtype))
    own = torch.einsum("fk,fkc->fc", weight, blur.cell_and_pixel(mu[..., :, None], choices[..., None, :]))
    left = (own - (projected @ right[..., None])[..., 0]).square()
    room = height - (projected * near).sum(-1)
    return torch.where(room > _TAKEN * height, left / room, -math.inf)
