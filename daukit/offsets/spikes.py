"""Spikes of the distances to the centre: found, and named by what put the units there (paper, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from daukit.offsets.histograms import Array

Reason = Literal["initialisation", "limit"]

HEIGHT = 2.0
"""How many times higher than what lies on either side a spike is."""

CERTAINTY = 4.0
"""How many standard deviations of a bin's own sum the spike rises above that: chance does not make one."""

SIDE = slice(1, 5)
"""The neighbours of a bin that tell what lies on a side: the second to the fifth, as a moved unit spills into the
first."""


@dataclass(frozen=True)
class Spike:
    """Neighbouring bins of the distances that stand out.

    Attributes:
        distance: centre of the highest bin, in pixels.
        start: where the bins begin.
        end: where they end.
        weight: their share of the ``|w|`` that the filter keeps.
        at_points: the share of that weight in units that have not moved from an initialisation point.
        at_limit: the share of it in units at the limit along y or x.
    """

    distance: float
    start: float
    end: float
    weight: float
    at_points: float
    at_limit: float

    @property
    def reason(self) -> Reason | None:
        """What holds at least half of the spike's weight in its place; None: neither, so training chose it."""
        if max(self.at_points, self.at_limit) < 0.5:
            return None
        return "initialisation" if self.at_points >= self.at_limit else "limit"


def find_spikes(
    mass: Array,
    bin: NDArray[np.int64],
    weight: Array,
    edges: Array,
    at_points: NDArray[np.bool_],
    at_limit: NDArray[np.bool_],
) -> tuple[Spike, ...]:
    """The spikes of a histogram of distances.

    A bin stands out where it holds over ``HEIGHT`` times the median of its neighbours on one side, and on the other,
    and more than that by ``CERTAINTY`` standard deviations of a sum of as many units as it has (the root of the sum of
    ``w^2``). Neighbouring bins that stand out are one spike.

    Args:
        mass: (bins,), sum of ``|w|``.
        bin: (units,), the bin of every unit.
        weight: (units,), ``|w|``.
        edges: (bins + 1,), of the distances.
        at_points: (units,), whether a unit has not moved from an initialisation point.
        at_limit: (units,), whether it is at the limit.
    """
    total = float(mass.sum())
    if not total:
        return ()
    level = HEIGHT * np.maximum(_median_beyond(mass), _median_beyond(mass[::-1])[::-1])
    deviation = np.sqrt(np.bincount(bin, weight**2, len(mass)))
    stands_out = np.concatenate([[False], mass > level + CERTAINTY * deviation, [False]])
    firsts, ends = np.flatnonzero(np.diff(stands_out.astype(np.int8))).reshape(-1, 2).T
    masses = [np.bincount(bin[mask], weight[mask], len(mass)) for mask in (at_points, at_limit)] if firsts.size else []
    spikes = []
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        own = float(mass[first:end].sum())
        top = first + int(np.argmax(mass[first:end]))
        parts = (float(part[first:end].sum()) / own for part in masses)
        spikes.append(
            Spike(
                float(edges[top] + edges[top + 1]) / 2, float(edges[first]), float(edges[end]), own / total, *parts
            )
        )  # fmt: skip
    return tuple(spikes)


def _median_beyond(mass: Array) -> Array:
    """Median of the ``SIDE`` neighbours above every bin; where there are none, nothing lies there: (bins,)."""
    padded = np.concatenate([mass, np.zeros(SIDE.stop)])
    windows = sliding_window_view(padded[1:], SIDE.stop)  # row i: the bins i + 1 to i + SIDE.stop
    medians: Array = np.median(windows[: len(mass), SIDE], axis=1)
    return medians
