"""Maps image by image and probe by probe, and how certain their differences make what is read off their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daukit.distributed import Ranks
from daukit.erf.intervals import ROUNDING, area_intervals

GROUPS = 32
"""More images, or probes, than these are added up in as many groups, which bounds memory and time."""

RESAMPLES = 200
_CHUNK = 1 << 23
"""Numbers of resampled maps that are held at once."""


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

    def area_intervals(self, masses: Sequence[float]) -> list[tuple[int, int] | None]:
        """95 % interval of the area of every contour for infinitely many images; None where it is not known."""
        return area_intervals(self._seen_pixels().numpy(), masses) if len(self.maps) > 1 else [None] * len(masses)

    def radius_errors(self, masses: Sequence[float], seed: int) -> list[float] | None:
        """Standard error of the radius of every contour, from maps drawn again; None for fewer than two."""
        groups = len(self.maps)
        if groups < 2:
            return None
        stack = self._seen_pixels()
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(groups, (RESAMPLES, groups), generator=generator)
        weights = torch.zeros(RESAMPLES, groups, dtype=torch.float64)
        weights.scatter_add_(1, chosen, torch.ones_like(weights))
        rows = max(1, _CHUNK // stack.shape[1])
        radii = np.concatenate([_radii((part @ stack).abs().numpy(), masses) for part in weights.split(rows)])
        # Resamples vary less than samples by this factor.
        return [float(error) for error in radii.std(0, ddof=1) * math.sqrt(groups / (groups - 1))]

    def _seen_pixels(self) -> Tensor:
        """The maps (groups, pixels) without the pixels that are zero in all, at most 1: their squares are finite."""
        stack = torch.stack(self.maps).flatten(1)
        stack = stack[:, (stack != 0).any(0)]
        return stack / stack.abs().max()


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
