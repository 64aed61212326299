"""Units of a pair kept apart on whole pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from daukit.ops.units import pair_of_units

_CHUNK = 2**24
"""Comparisons of places with units that are made at once."""


def whole_limit(limit: float | None) -> float:
    """The farthest whole pixel within ``limit``, along an axis; infinity where there is no limit."""
    return math.inf if limit is None else math.floor(limit)


@torch.no_grad()
def keep_apart(mu: Tensor, counts: Tensor, limit: float | None) -> Tensor:
    """Whole pixels for all units, no two of a pair on the same one.

    Every unit goes to the pixel that it rounds to. Of several units of a pair on one pixel the one nearest to it stays,
    the first of those equally near. The others, the nearest first, go to the free pixel within ``limit`` that is
    nearest to their displacement; of pixels equally near to the uppermost, then to the leftmost. A pair of more units
    than there are pixels within ``limit`` is only rounded.

    Args:
        mu: (2, units), pair by pair, finite.
        counts: (pairs,) int64, units of every pair.
        limit: as ``max_displacement`` of a layer.

    Returns:
        Displacements like ``mu``, all of them whole.
    """
    exact = mu.double()
    pixels, pair, bound = exact.round(), pair_of_units(counts), whole_limit(limit)
    first = counts.cumsum(0) - counts
    waiting = _second_comers(exact, pixels, pair)
    waiting = waiting[counts[pair[waiting]] <= (2 * bound + 1) ** 2]
    while waiting.numel():  # one unit of every pair at a time
        now = _firsts(pair[waiting], counts.numel())
        units = waiting[now]
        most = int(counts[pair[units]].max())
        around = _around(most, bound, mu.device)
        for some in units.split(max(1, _CHUNK // (around.shape[1] * most))):
            last = counts[pair[some], None] - 1
            rest = first[pair[some], None] + torch.arange(most, device=mu.device).minimum(last)
            pixels[:, some] = _free(exact[:, some], pixels[:, some], pixels[:, rest], around, bound)
        waiting = waiting[~now]
    return pixels.to(mu.dtype)


def _second_comers(mu: Tensor, pixels: Tensor, pair: Tensor) -> Tensor:
    """Units whose pixel another one of the pair keeps, those nearest to their pixel first."""
    order = (mu - pixels).square().sum(0).argsort(stable=True)
    (rows, row), (columns, column) = (torch.unique(axis, return_inverse=True) for axis in pixels)
    places, place = torch.unique((pair * rows.numel() + row) * columns.numel() + column, return_inverse=True)
    return order[~_firsts(place[order], places.numel())]


def _firsts(groups: Tensor, count: int) -> Tensor:
    """True for the first entry of each of ``count`` groups."""
    number = torch.arange(groups.numel(), device=groups.device)
    earliest = number.new_full((count,), groups.numel()).scatter_reduce(0, groups, number, "amin")
    return earliest[groups] == number


def _around(units: int, bound: float, device: torch.device) -> Tensor:
    """Steps (y, x), row by row, among which the nearest free pixel lies when ``units`` are in the way: (2, steps)."""
    # A quarter of a square, all that a corner of the limit leaves, has a free pixel from this side on. None that is
    # nearer lies beyond its corner's distance, and a unit is up to 0.71 pixels away from the pixel that it rounds to.
    side = math.isqrt(units) + 1
    reach = int(min(math.ceil(side * math.sqrt(2) + 1.5), 2 * bound))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64, device=device)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)


def _free(mu: Tensor, pixel: Tensor, taken: Tensor, around: Tensor, bound: float) -> Tensor:
    """The nearest free pixel of each unit: (2, units).

    Args:
        mu: (2, units).
        pixel: (2, units), where they round to.
        taken: (2, units, n), pixels of all units of their pairs.
        around: (2, steps).
        bound: the farthest whole pixel.
    """
    places = pixel[..., None] + around[:, None]  # (2, units, steps)
    full = (places[..., None] == taken[:, :, None]).all(0).any(-1)
    distance = (places - mu[..., None]).square().sum(0)
    distance.masked_fill_(full | (places.abs() > bound).any(0), math.inf)
    best = distance.argmin(1)
    found = places.gather(2, best.expand(2, 1, -1).transpose(1, 2)).squeeze(2)
    return torch.where(distance.gather(1, best[:, None]).squeeze(1) < math.inf, found, pixel)
