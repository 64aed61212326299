"""Weight filters: which units of a layer a distribution counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from daukit.offsets.histograms import MAX_BINS, Array

FilterRule = Literal["keep-top", "keep-rel"]

KEEP = (1.0, 0.9, 0.75)
"""The shares of the paper's Fig. 6 and 7."""


@dataclass(frozen=True)
class WeightFilter:
    """A choice of the units of a layer, or of a group of layers, that a distribution counts.

    Attributes:
        rule: ``"keep-top"``, the ``share`` of the layer's units with the largest ``|w|`` (the paper's figure captions),
            or ``"keep-rel"``, the units with ``|w| >= share * largest |w|`` (its text).
        share: above 0 for ``keep-top``, at least 0 for ``keep-rel``; at most 1.
    """

    rule: FilterRule
    share: float

    def __post_init__(self) -> None:
        if self.rule not in ("keep-top", "keep-rel"):
            raise ValueError(f'rule must be "keep-top" or "keep-rel", got {self.rule!r}')
        if not 0 <= self.share <= 1 or (self.rule == "keep-top" and self.share == 0):
            allowed = "above 0 and at most 1" if self.rule == "keep-top" else "within [0, 1]"
            raise ValueError(f"the share of {self.rule} must be {allowed}, got {self.share}")

    @property
    def label(self) -> str:
        """The filter in words, for legends and titles."""
        if self.share == (1 if self.rule == "keep-top" else 0):
            return "all units"
        return f"top {100 * self.share:g}% by |w|" if self.rule == "keep-top" else f"|w| ≥ {self.share:g} max |w|"

    def threshold(self, ascending: Array) -> float:
        """The least ``|w|`` to keep, given a layer's ``|w|`` in ascending order: (units,).

        ``keep-top`` keeps ``ceil(share * units)`` units, and with the last of them every unit of the same ``|w|``.
        """
        if not ascending.size:
            return 0.0
        if self.rule == "keep-rel":
            return self.share * float(ascending[-1])
        # The share as the decimal that was written: 0.07 of 100 units are 7, not ceil(7.000000000000001) = 8.
        count = math.ceil(Fraction(str(self.share)) * ascending.size)
        return float(ascending[ascending.size - count])


def weight_filters(rule: FilterRule, shares: Sequence[float], bins: int) -> list[WeightFilter]:
    """One filter per share; raise ``ValueError`` where an option is outside its range."""
    if not 1 <= bins <= MAX_BINS:
        raise ValueError(f"bins must be at least 1 and at most {MAX_BINS}, got {bins}")
    return [WeightFilter(rule, share) for share in shares]
