"""Maps image by image and probe by probe, and how certain their differences make the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daukit.distributed import Ranks

GROUPS = 32
"""More images, or probes, than these are added up in as many groups, which bounds memory and time."""

RESAMPLES = 200
_CHUNK = 1 << 23
"""Numbers of resampled maps that are held at once."""

# Two-sided 95 % quantiles of Student's t for 1 to 31 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042, 2.040,
)  # fmt: skip

ROUNDING = 1e-12
"""Share of the mass that summing in float64 may lose; without it, equal pixels could need one pixel too many."""


class Samples:
    """The sums of one layer's maps over images, in groups. ``size``: (height, width) of a map."""

    def __init__(self, size: tuple[int, int]):
        self._size = size
        self.maps: list[Tensor] = []

    def add_each(self, maps: Tensor, first: int) -> None:
        """Add the maps (N, H, W) float64 of images, or probes, ``first`` to ``first + N - 1``."""
        for number, map in enumerate(maps, first):
            group = number % GROUPS
            while group >= len(self.maps):  # several, where other processes have those between
                self.maps.append(torch.zeros(self._size, dtype=torch.float64))
            self.maps[group] += map

    def added_up(self, ranks: Ranks, number: int) -> Samples:
        """The sums of several processes that have added ``number`` images, or probes, together."""
        whole = Samples(self._size)
        more = [torch.zeros(self._size, dtype=torch.float64)] * (min(number, GROUPS) - len(self.maps))
        whole.maps = list(ranks.add(torch.stack([*self.maps, *more])))
        return whole

    def total(self) -> Tensor:
        """The sum of all."""
        return torch.stack(self.maps).sum(0)

    def bootstrap(self, masses: Sequence[float], seed: int) -> Bootstrap | None:
        """Draw the images again and again, to see how the radii change; None for fewer than two images."""
        groups = len(self.maps)
        if groups < 2:
            return None
        stack = torch.stack(self.maps).flatten(1)  # (groups, H * W)
        stack = stack[:, (stack != 0).any(0)]
        stack = stack / stack.abs().max()
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(groups, (RESAMPLES, groups), generator=generator)
        weights = torch.zeros(RESAMPLES, groups, dtype=torch.float64)
        weights.scatter_add_(1, chosen, torch.ones_like(weights))
        rows = max(1, _CHUNK // stack.shape[1])
        radii = [_radii((part @ stack).abs().numpy(), masses) for part in weights.split(rows)]
        return Bootstrap(np.concatenate(radii), groups)


class Bootstrap:
    """Radii (resamples, masses) of maps whose images were drawn again with replacement."""

    def __init__(self, radii: NDArray[np.float64], groups: int):
        self._mean = radii.mean(0)
        # Resamples vary less than samples by this factor.
        self._error = radii.std(0, ddof=1) * math.sqrt(groups / (groups - 1))
        self._quantile = _T95[min(groups - 1, len(_T95)) - 1]

    def errors(self) -> list[float]:
        """Standard error of every radius."""
        return [float(error) for error in self._error]

    def intervals(self, measured: Sequence[float]) -> list[tuple[float, float]]:
        """95 % interval of every radius for infinitely many images, ``measured`` being those of the images at hand.

        Few images make contours too small, resampled ones smaller still by about as much: the interval is centred on
        the measured radius less that difference. docs/erf.md states how often it holds the truth.
        """
        centers = [2 * own - float(mean) for own, mean in zip(measured, self._mean, strict=True)]
        halves = [self._quantile * error for error in self.errors()]
        return [(max(0.0, c - half), c + half) for c, half in zip(centers, halves, strict=True)]


def areas_and_levels(influence: Tensor, masses: Sequence[float]) -> list[tuple[int, float]]:
    """(number of pixels, influence of the last one) of the smallest sets that hold the shares ``masses``."""
    descending = np.sort(influence.flatten().numpy())[::-1]
    held = descending.cumsum()
    last = np.searchsorted(held, (np.asarray(masses) - ROUNDING) * held[-1])
    return [(int(i) + 1, float(descending[i])) for i in last]


def _radii(influences: NDArray[np.float64], masses: Sequence[float]) -> NDArray[np.float64]:
    """Radii (rows, masses) of the contours of influences (rows, pixels), which are sorted in place."""
    influences.sort(axis=1)
    held = influences[:, ::-1].cumsum(1)
    enough = (np.asarray(masses) - ROUNDING) * held[:, -1:]
    areas = [np.searchsorted(row, needed) + 1 for row, needed in zip(held, enough, strict=True)]
    radii: NDArray[np.float64] = np.sqrt(np.asarray(areas) / math.pi)
    return radii
