"""How far the areas of contours are known, as images differ: docs/erf.md derives the intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

# Two-sided 95 % quantiles of Student's t for 1 to 31 degrees of freedom.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042, 2.040,
)  # fmt: skip

ROUNDING = 1e-12
"""Share of the mass that summing in float64 may lose; without it, equal pixels could need one pixel too many."""

_NOTHING = 1e-100
"""Sums of influences below this are cancellations; the squares of what they divide stay finite."""


def area_intervals(maps: _Floats, masses: Sequence[float]) -> list[tuple[int, int] | None]:
    """95 % interval of the area, in whole pixels, of every contour for infinitely many images like those given.

    Pixels are ordered by their influence on all images, which overstates what the first k of them hold, and for each
    half of the images by the other half, which understates it. The interval begins at the first k that may hold the
    mass by the former, and ends at the first one from which on all do by the latter.

    Args:
        maps: (N, P) float64, at most 1 in size: P pixels in each of N images, or groups of images, 2 to 32.
        masses: shares of the influence, each within (0, 1].

    Returns:
        (least, largest) number of pixels for each mass; the measured area lies between them. None where influences of
        opposite sign cancel so far that not even all P pixels hold the mass for sure.
    """
    total = maps.sum(0)
    most, most_mass = _held(maps, total, total)
    least, least_mass = _held_by_halves(maps, total)
    low, low_error = _outside_to_inside(most, least_mass)
    high, high_error = _outside_to_inside(least, most_mass)
    quantile = T95[len(maps) - 2]
    intervals: list[tuple[int, int] | None] = []
    for mass in masses:
        share = mass - ROUNDING
        allowed = math.log((1 - share) / share) if share > 0 else math.inf
        may, must = low - quantile * low_error <= allowed, high + quantile * high_error <= allowed
        missing = np.flatnonzero(~must)
        end = int(missing[-1]) + 2 if len(missing) else 1
        intervals.append((int(may.argmax()) + 1, end) if must[-1] else None)
    return intervals


def _held(maps: _Floats, ordering: _Floats, total: _Floats) -> tuple[_Floats, _Floats]:
    """Influence (N, P) that the first pixels of every image hold, in the order of ``ordering`` (P), and all of it (N).

    Signs count: a negative influence is held where the ordering is negative, too, or ``total`` where that is zero.
    """
    order = np.argsort(-np.abs(ordering), kind="stable")
    signs = np.where(np.where(ordering == 0, total, ordering) < 0, -1.0, 1.0)
    held = (maps * signs)[:, order].cumsum(1)
    return held, held[:, -1]


def _held_by_halves(maps: _Floats, total: _Floats) -> tuple[_Floats, _Floats]:
    """The same, each half of the images in the order that the other half gives."""
    held, mass = np.empty_like(maps), np.empty(len(maps))
    for own, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        held[own], mass[own] = _held(maps[own], maps[other].sum(0), total)
    return held, mass


def _outside_to_inside(held: _Floats, whole: _Floats) -> tuple[_Floats, _Floats]:
    """log(outside / inside) of the influence, for the first 1 to P pixels, and its standard error.

    Gains of single images cancel in it. Its error is that of a sum over images: each one's share of all that is outside
    less its share of all that is inside.
    """
    inside = held.sum(0)
    outside = whole.sum() - inside
    none_outside = outside <= max(ROUNDING * whole.sum(), _NOTHING)
    none_inside = inside <= _NOTHING
    outside, inside = np.where(none_outside, 1.0, outside), np.where(none_inside, 1.0, inside)
    squares = np.zeros_like(inside)
    for part, all_of_it in zip(held, whole, strict=True):
        squares += ((all_of_it - part) / outside - part / inside) ** 2
    error = np.sqrt(len(held) / (len(held) - 1) * squares)
    ratio = np.where(none_inside, np.inf, np.where(none_outside, -np.inf, np.log(outside / inside)))
    return ratio, np.where(none_inside | none_outside, 0.0, error)
