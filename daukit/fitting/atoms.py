"""Filters in terms of *atoms*, the blurs at whole displacements: a unit's kernel lies between its nearest four."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.ops.kernels import blur_radius, blur_taps

OnFilters = Callable[[int, int], None]
"""Called with (filters done, filters in all)."""


@dataclass(frozen=True)
class Atoms:
    """A run of ``F`` filters and all that a search of their units needs. Axes are (y, x); filters come last.

    Attributes:
        taps: per axis ``(window, atoms)``: the blur at every whole displacement, on a window that holds all of them.
        gram: per axis ``(atoms, atoms)``, their inner products.
        kernels: ``(height, width, F)``.
        products: ``(atoms y, atoms x, 1, F)``, inner products of filters with atoms.
        energy: ``(F,)``, ``||k||^2``.
    """

    taps: tuple[Tensor, Tensor]
    gram: tuple[Tensor, Tensor]
    kernels: Tensor
    products: Tensor
    energy: Tensor

    @property
    def centre(self) -> Tensor:
        """The place of displacement 0: (2, 1, 1), in atoms."""
        return self.energy.new_tensor([gram.shape[0] // 2 for gram in self.gram])[:, None, None]

    def coefficients(self, places: Tensor, axis: int) -> Tensor:
        """Shares of the atoms along one axis in units at ``places`` (units, ...): (units, atoms, ...)."""
        at = torch.arange(self.gram[axis].shape[0], dtype=places.dtype, device=places.device)
        at = at.reshape(-1, *[1] * (places.dim() - 1))
        return (1 - (places[:, None] - at).abs()).clamp_(min=0)

    def mixture(self, weight: Tensor, places: Tensor) -> Tensor:
        """Coefficients of all atoms in the sum of units, weight (units, F), places (2, units, F): (F, y, x)."""
        along_y, along_x = (self.coefficients(places[axis], axis).permute(2, 1, 0) for axis in (0, 1))
        return (along_y * weight.T[:, None]) @ along_x.mT

    def residual(self, weight: Tensor, places: Tensor) -> Tensor:
        """``||k - k_hat||^2`` (F,), by its definition."""
        taps_y, taps_x = self.taps
        difference = taps_y @ self.mixture(weight, places) @ taps_x.mT
        height, width, _ = self.kernels.shape
        difference[:, _middle(taps_y, height), _middle(taps_x, width)] -= self.kernels.permute(2, 0, 1)
        return difference.square().sum((1, 2))


def atoms_of(filters: Tensor, sigma: float, limit: float | None) -> Atoms:
    """Filters (F, height, width) in terms of atoms within ``limit``, in float64; on the CPU where MPS has none."""
    height, width = filters.shape[1:]
    filters = filters.to("cpu" if filters.device.type == "mps" else filters.device).double()
    blur = blur_taps(filters.new_tensor(sigma), blur_radius(sigma)).gaussian
    taps_y, taps_x = (_shifted_blurs(blur, side // 2, limit) for side in (height, width))
    products = taps_y[_middle(taps_y, height)].mT @ filters @ taps_x[_middle(taps_x, width)]
    return Atoms(
        (taps_y, taps_x),
        (taps_y.mT @ taps_y, taps_x.mT @ taps_x),
        filters.permute(1, 2, 0),
        products.permute(1, 2, 0).contiguous()[:, :, None],
        filters.square().sum((1, 2)),
    )


def _shifted_blurs(blur: Tensor, half: int, limit: float | None) -> Tensor:
    """The blur at displacements up to one pixel beyond a filter of radius ``half``: (window, atoms)."""
    bound = half + 1 if limit is None else min(half + 1, math.floor(limit))
    radius, count = len(blur) // 2, 2 * bound + 1
    radius_of_window = max(half, bound + radius)
    taps = blur.new_zeros(2 * radius_of_window + 1, count)
    for atom in range(count):
        first = radius_of_window - bound - radius + atom
        taps[first : first + len(blur), atom] = blur
    return taps


def _middle(taps: Tensor, side: int) -> slice:
    """The rows of the window in which a filter of that side lies."""
    first = (taps.shape[0] - side) // 2
    return slice(first, first + side)
