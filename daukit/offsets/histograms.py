"""Sums over units that count by ``|w|``: shares, means, quantiles and histograms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daukit.results import Share

Array = NDArray[np.float64]

BINS = 79
"""Cells across a layer's square. Odd: the filter's centre is the centre of a cell. Prime: the points of an initial grid
do not fall on the edges between cells, where rounding would scatter a spike."""

MAX_BINS = 2000
"""More than any figure shows; a layer's plane has their square, for every weight filter."""

QUANTILES = (0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Part:
    """Part of a layer's units.

    Attributes:
        units: share of the units.
        weight: share of the sum of |w|; null where that sum is 0.
    """

    units: Share
    weight: Share | None


@dataclass(frozen=True)
class Bins:
    """The cells of a square around zero, and the bins, of the same width, of the distances within it.

    Attributes:
        edges: (bins + 1,), of both axes.
        distance_edges: (distance bins + 1,), from 0 to beyond the square's corner.
    """

    edges: Array
    distance_edges: Array

    @property
    def width(self) -> float:
        """Width of a bin of any axis."""
        return 2 * float(self.edges[-1]) / (len(self.edges) - 1)

    @classmethod
    def of_square(cls, half: float, bins: int) -> Bins:
        """The square ``[-half, half]^2``."""
        width, distance_bins = 2 * half / bins, math.ceil(bins / math.sqrt(2))
        return cls(np.linspace(-half, half, bins + 1), np.linspace(0, width * distance_bins, distance_bins + 1))


def bin_of(values: Array, edges: Array) -> NDArray[np.int64]:
    """The bin ``[edges[i], edges[i + 1])`` of every value, edges evenly spaced; the last holds its right edge too."""
    last = len(edges) - 2
    index: NDArray[np.int64] = ((values - edges[0]) * ((last + 1) / (edges[-1] - edges[0]))).astype(np.int64)
    np.clip(index, 0, last, out=index)
    # The division rounds, by less than a bin: the edges themselves decide.
    index -= (values < edges[index]) & (index > 0)
    index += (values >= edges[index + 1]) & (index < last)
    return index


def mean(values: Array, weight: Array) -> float | None:
    """Mean weighted by ``weight``; None where it sums to zero."""
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total else None


def quantiles(values: Array, weight: Array) -> dict[float, float] | None:
    """{share: the least value up to which that share of ``weight`` lies}; None where it sums to zero."""
    order = np.argsort(values)
    mass = np.cumsum(weight[order])
    if not mass.size or not mass[-1]:
        return None
    return {q: float(values[order[np.searchsorted(mass, q * mass[-1])]]) for q in QUANTILES}


def part_of(chosen: NDArray[np.bool_], weight: Array) -> Part:
    """The chosen part of the units and of their weight."""
    total = float(weight.sum())
    return Part(float(chosen.mean()) if chosen.size else 0.0, float(weight[chosen].sum()) / total if total else None)


def round_up(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below ``value``; 1 for zero."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= value)
