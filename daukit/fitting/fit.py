"""The fit's door: arguments are checked here, filters go to the search in runs, and errors are measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.fitting.atoms import Atoms, OnFilters, atoms_of
from daukit.fitting.search import place_units, solve_weights
from daukit.ops import MIN_SIGMA


@dataclass(frozen=True)
class FittedUnits:
    """Units that approximate kernels.

    Attributes:
        weight: ``(*filters, units)``, in the kernels' dtype and on their device.
        mu: ``(2, *filters, units)``, displacement (y, x) in dilated pixels, likewise.
        filter_errors: ``(*filters,)``, ``||k - k_hat|| / ||k||`` of each filter; 0 for a filter of zeros.
        error: the same of all filters together.
    """

    weight: Tensor
    mu: Tensor
    filter_errors: Tensor
    error: float


def fit_units(
    kernels: Tensor,
    units: int,
    *,
    sigma: float = 0.5,
    max_displacement: float | None = None,
    starts: int = 16,
    seed: int = 0,
    on_filters: OnFilters | None = None,
) -> FittedUnits:
    r"""Find, for every filter, the units whose summed kernel is nearest to it in least squares.

    Energy that the units' blur leaves outside the filter's window counts as error too. The search covers displacements
    up to one pixel beyond the window; units farther out have nothing to gain.

    Args:
        kernels: ``(*filters, height, width)`` with odd sides, as ``(out_channels, in_channels // groups, 3, 3)``.
        units: units per filter.
        sigma: standard deviation of the blur in (dilated) pixels.
        max_displacement: limit of \|mu\| per axis, of which the whole pixels are searched; None: no limit of its own.
        starts: starting points per filter, at least 2: units added one by one where the residual is largest, one unit
            on each of the largest taps, and random ones.
        seed: seed of the random starts, which are the same for every filter.
        on_filters: called with (filters done, filters in all).

    Raises:
        ValueError: a value that breaks a rule above, or kernels with NaN or infinite values.

    Example:
        >>> fit_units(torch.eye(3)[None], 2, sigma=0.01).mu.shape
        torch.Size([2, 1, 2])
    """
    _check(kernels, units, sigma, max_displacement, starts)
    parts = []
    for atoms in _chunks(kernels, units, sigma, max_displacement, starts, on_filters):
        *_, places = place_units(atoms, units, starts, seed, every=False)
        weight = solve_weights(atoms, places)
        parts.append((weight, places - atoms.centre, atoms.residual(weight, places), atoms.energy))
    weight, mu, residual, energy = (torch.cat([part[i] for part in parts], dim=-1).to(kernels) for i in range(4))
    shape = kernels.shape[:-2]
    return FittedUnits(
        weight.movedim(-1, 0).reshape(*shape, units),
        mu.movedim(-1, 1).reshape(2, *shape, units),
        _relative(residual, energy).reshape(shape),
        float(_relative(residual.sum(), energy.sum())),
    )


def fit_errors(
    kernels: Tensor,
    max_units: int,
    *,
    sigma: float = 0.5,
    max_displacement: float | None = None,
    starts: int = 16,
    seed: int = 0,
    on_filters: OnFilters | None = None,
) -> tuple[float, ...]:
    """Relative error of all filters together for 1, 2, ..., ``max_units`` units; arguments as in ``fit_units``.

    Each count starts from the fit with one unit less, too, so that the errors never grow.
    """
    _check(kernels, max_units, sigma, max_displacement, starts)
    residual, energy = [0.0] * max_units, 0.0
    for atoms in _chunks(kernels, max_units, sigma, max_displacement, starts, on_filters):
        for i, places in enumerate(place_units(atoms, max_units, starts, seed, every=True)):
            residual[i] += float(atoms.residual(solve_weights(atoms, places), places).sum())
        energy += float(atoms.energy.sum())
    return tuple(math.sqrt(part / energy) if energy else 0.0 for part in residual)


def _check(kernels: Tensor, units: int, sigma: float, limit: float | None, starts: int) -> None:
    if kernels.dim() < 3 or not kernels.numel() or kernels.shape[-1] % 2 == 0 or kernels.shape[-2] % 2 == 0:
        raise ValueError(f"kernels must be (*filters, height, width) with odd sides, got shape {tuple(kernels.shape)}")
    if not bool(torch.isfinite(kernels).all()):
        raise ValueError("kernels hold NaN or infinite values, to which nothing can be fitted")
    if units < 1:
        raise ValueError(f"units must be at least 1, got {units}")
    if not (math.isfinite(sigma) and sigma >= MIN_SIGMA):
        raise ValueError(f"sigma must be finite and at least {MIN_SIGMA} pixels, got {sigma}")
    if limit is not None and not limit >= 0:
        raise ValueError(f"max_displacement must be None or at least 0, got {limit}")
    if starts < 2:
        raise ValueError(f"starts must be at least 2 (grown units and largest taps), got {starts}")


CHUNK_VALUES = 2**20
"""Numbers in the working set of filters that are fitted together, small enough to stay near the processor."""


def _chunks(
    kernels: Tensor, units: int, sigma: float, limit: float | None, starts: int, on_filters: OnFilters | None
) -> Iterator[Atoms]:
    height, width = kernels.shape[-2:]
    filters = kernels.detach().reshape(-1, height, width)
    cells = (height + 2) * (width + 2)
    step = max(1, CHUNK_VALUES // (starts * units * (units + height + width) + cells))
    for first in range(0, len(filters), step):
        run = filters[first : first + step]
        yield atoms_of(run, sigma, limit)
        if on_filters is not None:
            on_filters(first + len(run), len(filters))


def _relative(residual: Tensor, energy: Tensor) -> Tensor:
    return torch.where(energy > 0, residual / energy, 0).sqrt()
