"""Gridding: the part of score maps that repeats with the grid of a dilation (docs/math.md, section 8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from daukit.errors import DataError, in_words_of_caller
from daukit.results import Count, Share, Size
from daukit.tasks.sums import CascadeSum

MAX_PERIOD = 64
"""The longest period of a grid: phases are computed one by one, and there are as many as its square."""

_ROUNDING = 1e-28
"""The share of the squares of all scores below which an energy is float64's rounding: differences of 1e-14."""


@dataclass(frozen=True)
class Gridding:
    """How much of a network's score maps repeats with a grid.

    Attributes:
        period: pixels of the score maps after which the grid repeats, the dilation.
        share: share of the maps' energy at the frequencies of the grid; None of maps that are the same everywhere.
        white_noise: the share in white noise, which has as much energy at every frequency.
        images: number of images with maps large enough for the grid.
    """

    period: Size
    share: Share | None
    white_noise: Share
    images: Count


class GridEnergy:
    """Energy of score maps in all, and at the frequencies of a grid: sums over images."""

    def __init__(self, period: int) -> None:
        """Begin with nothing.

        Raises:
            ValueError: the period is not within [2, ``MAX_PERIOD``].
        """
        if not 2 <= period <= MAX_PERIOD:
            raise ValueError(f"periods of grids must be within [2, {MAX_PERIOD}], got {period}")
        self.period = period
        self._sums = tuple(CascadeSum() for _ in range(3))  # of the grid, of the maps, of the scores as they are
        self._images, self._largest = 0, (0, 0)

    def add(self, scores: Tensor) -> None:
        """Add the maps of images, (N, classes, h, w), unless rows or columns are fewer than ``4 * period - 1``."""
        height, width = scores.shape[2:]
        self._largest = max(self._largest, (height, width), key=min)
        if min(height, width) < 4 * self.period - 1:
            return
        scores = scores.cpu().double()  # not every device has float64
        maps = scores - scores.mean(1, keepdim=True)  # a softmax does not see what all classes have in common
        energies = _energies(maps - maps.mean((2, 3), keepdim=True), self.period)
        for total, values in zip(self._sums, (*energies, scores.square().sum((1, 2, 3))), strict=True):
            total.add(values.tolist())
        self._images += len(scores)

    def merge(self, other: GridEnergy) -> None:
        """Add what another sum of the same period has come to."""
        for total, more in zip(self._sums, other._sums, strict=True):
            total.merge(more)
        self._images += other._images
        self._largest = max(self._largest, other._largest, key=min)

    def result(self) -> Gridding:
        """The share so far.

        Raises:
            DataError: no image had maps large enough.
        """
        if not self._images:
            least, (height, width) = 4 * self.period - 1, self._largest
            raise DataError(
                f"a grid of period {self.period} shows on score maps of {least}x{least} or more, and those of the "
                f"images are {height}x{width} at most; take larger images, or a shorter period in "
                + in_words_of_caller("gridding=...", "--gridding")
            )
        grid, energy, squares = (total.total for total in self._sums)
        share = min(max(grid / energy, 0.0), 1.0) if energy > _ROUNDING * squares else None
        return Gridding(self.period, share, white_noise_share(self.period), self._images)


def white_noise_share(period: int) -> float:
    """The share of white noise at the frequencies of a grid, on a large map."""
    squares = (8 * period**2 + 1) / (24 * period**2)  # of the weights of a phase along one axis, summed
    return squares**2 * (1 - 1 / period**2)


def _energies(maps: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """Energy at the frequencies of the grid and in all, (N,) each, of maps (N, C, h, w).

    At every position a window of four periods sees each of the grid's ``period ** 2`` phases as a weighted mean. By
    Parseval's theorem the variance of these means is the energy at the grid's frequencies.
    """
    mean, square, energy = (maps.new_zeros(()) for _ in range(3))
    rows = zip(_phases(maps, period, 2), _phases(maps.square(), period, 2), strict=True)
    for row, squared_row in rows:
        for phase, squared in zip(_phases(row, period, 3), _phases(squared_row, period, 3), strict=True):
            mean, square, energy = mean + phase, square + phase.square(), energy + squared
    phases = period**2
    mean, square, energy = mean / phases, square / phases, energy / phases  # (N, C, h', w')
    grid = (square - mean.square()).sum((1, 2, 3))
    whole = energy.sum((2, 3)) - mean.sum((2, 3)).square() / (mean.shape[2] * mean.shape[3])
    return grid, whole.sum(1)


def _phases(maps: Tensor, period: int, axis: int) -> Iterator[Tensor]:
    """Weighted means of every ``period``-th value along an axis, for all places of the window, one phase at a time.

    Weights fall in a straight line from the window's middle to zero two periods away: a slope has the same mean in all
    phases, so that it is no grid.
    """
    radius = 2 * period
    places = maps.shape[axis] - 2 * radius + 2
    for first in range(period):
        taps = [offset for offset in range(first - radius, radius, period) if abs(offset) < radius]
        yield sum(
            ((1 - abs(offset) / radius) / 2 * maps.narrow(axis, radius - 1 + offset, places) for offset in taps),
            start=maps.new_zeros(()),
        )
