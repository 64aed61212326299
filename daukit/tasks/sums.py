"""Sums of many numbers."""

from __future__ import annotations

from collections.abc import Iterable

_LEVELS = 8
_STEP = 16


class CascadeSum:
    """Adds numbers one after another, sixteen at a time, then sixteen of these sums at a time, and so on.

    Rounding errors grow with the logarithm of the count alone. These are the steps in which ``F.cross_entropy`` sums
    the losses of a batch on the CPU: a mean has the same bits, whatever batches its numbers came in, as if all of them
    had been one batch.
    """

    def __init__(self) -> None:
        self._parts = [0.0] * _LEVELS
        self._added = 0

    def add(self, values: Iterable[float]) -> None:
        """Add numbers in their order."""
        parts = self._parts
        for value in values:
            parts[0] += value
            place = self._added
            for level in range(_LEVELS - 1):
                if place % _STEP:
                    break
                parts[level + 1] += parts[level]
                parts[level] = 0.0
                place //= _STEP
            self._added += 1

    def merge(self, other: CascadeSum) -> None:
        """Add what another sum has come to."""
        self._parts[-1] += other.total

    @property
    def total(self) -> float:
        """The sum so far."""
        total = 0.0
        for part in self._parts:  # sum() of newer Pythons rounds otherwise
            total += part
        return total
