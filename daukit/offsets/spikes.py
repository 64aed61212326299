"""Spikes of the distances to the centre: found, and named by what put the units there (paper, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from daukit.offsets.histograms import Array
from daukit.results import Positive, Share

Reason = Literal["initialisation", "limit"]

HEIGHT = 2.0
"""Height of a spike, in times what lies on either side of it."""

CERTAINTY = 4.0
"""Rise of a spike above that, in standard deviations of a bin's own sum: chance does not make one."""

SIDE = slice(1, 5)
"""The neighbours of a bin that tell what lies on a side: the second to the fifth, as a moved unit spills into the
first."""


@dataclass(frozen=True)
class Spike:
    """Neighbouring bins of the distances that stand out.

    Attributes:
        distance: centre of the highest bin, in pixels.
        start: lower edge of the first bin, in pixels.
        end: upper edge of the last bin, in pixels.
        weight: their share of the |w| that the weight filter keeps.
        at_points: share of the spike's |w| in units that have not moved from an initialisation point.
        at_limit: share of the spike's |w| in units at the limit along y or x.
        reason: "initialisation" or "limit", whichever holds at least half of the spike's |w| in its place; null where
            neither does, so that training chose it.
    """

    distance: Positive
    start: Positive
    end: Positive
    weight: Share
    at_points: Share
    at_limit: Share
    reason: Reason | None


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
        still, stopped = (float(part[first:end].sum()) / own for part in masses)
        spikes.append(
            Spike(
                distance=float(edges[top] + edges[top + 1]) / 2,
                start=float(edges[first]),
                end=float(edges[end]),
                weight=own / total,
                at_points=still,
                at_limit=stopped,
                reason=_reason(still, stopped),
            )
        )
    return tuple(spikes)


def _reason(at_points: float, at_limit: float) -> Reason | None:
    if max(at_points, at_limit) < 0.5:
        return None
    return "initialisation" if at_points >= at_limit else "limit"


def _median_beyond(mass: Array) -> Array:
    """Median of the ``SIDE`` neighbours above every bin; where there are none, nothing lies there: (bins,)."""
    padded = np.concatenate([mass, np.zeros(SIDE.stop)])
    windows = sliding_window_view(padded[1:], SIDE.stop)  # row i: the bins i + 1 to i + SIDE.stop
    medians: Array = np.median(windows[: len(mass), SIDE], axis=1)
    return medians
