"""Flat lists of units: the one form in which every backend sees dense and ragged layers.

A *pair* is one (output channel, input channel of its group); pair ``p = out * (in_channels / groups) + in``. A dense
layer has the same number of units in every pair, a ragged (pruned) one has ``unit_ptr[p + 1] - unit_ptr[p]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnitList:
    """All units of a layer, ordered by pair.

    Attributes:
        weight: ``(units,)``.
        mu: ``(2, units)``, displacement (y, x) in dilated pixels.
        pair: ``(units,)`` int64, the pair that owns each unit.
        pair_ptr: ``(pairs + 1,)`` int64, where each pair's units begin.
        per_pair: units of every pair of a dense layer; None for ragged units.
        limit: None where values may be read; else all displacements lie within it, and nobody reads any value, for
            which a GPU would be waited for.
    """

    weight: Tensor
    mu: Tensor
    pair: Tensor
    pair_ptr: Tensor
    per_pair: int | None
    limit: int | None = None

    def run(self, first: int, last: int) -> slice:
        """The units of pairs from ``first`` up to ``last``; all of them where values may not be read."""
        if self.per_pair is not None:
            return slice(first * self.per_pair, last * self.per_pair)
        if self.limit is not None:
            return slice(0, self.weight.numel())
        return slice(int(self.pair_ptr[first]), int(self.pair_ptr[last]))


def unit_list(weight: Tensor, mu: Tensor, unit_ptr: Tensor | None) -> UnitList:
    """Flatten dense ``(O, C, K)`` or ragged ``(U,)`` units into one list."""
    if unit_ptr is None:
        pairs, per_pair = weight.shape[0] * weight.shape[1], weight.shape[2]
        pair_ptr = torch.arange(pairs + 1, device=weight.device) * per_pair
        pair = torch.arange(pairs, device=weight.device).repeat_interleave(per_pair)
        return UnitList(weight.reshape(-1), mu.reshape(2, -1), pair, pair_ptr, per_pair)
    pair_ptr = unit_ptr.long()
    pair = pair_of_units(pair_ptr.diff(), weight.numel())
    return UnitList(weight.reshape(-1), mu.reshape(2, -1), pair, pair_ptr, None)


def pair_of_units(counts: Tensor, units: int | None = None) -> Tensor:
    """The pair that owns each unit: ``(units,)`` int64, from the units of every pair, ``counts`` ``(pairs,)``.

    Where the number of ``units`` is told, a GPU is not waited for.
    """
    return torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts, output_size=units)


def near_units(units: UnitList, limit: int, slopes: bool) -> tuple[UnitList, Tensor]:
    """The units within ``limit`` dilated pixels, in a list that nobody reads values of, and how many others there are.

    A unit that lies farther, or at NaN, or whose slope (``slopes``) needs the tap beyond the limit, stays in its place
    with weight 0 and at the centre. What is far is what ``is_far`` of cuda/cells.cuh says.

    Returns:
        The list, and a tensor (1,) int32.
    """
    near = (units.mu.abs() <= limit).all(0)
    if slopes:
        near &= (units.mu != limit).all(0)
    inside = replace(units, weight=torch.where(near, units.weight, 0), mu=torch.where(near, units.mu, 0), limit=limit)
    return inside, torch.count_nonzero(~near).to(torch.int32).reshape(1)


def check_finite(mu: Tensor) -> None:
    """Raise where a displacement is NaN or infinite."""
    if not bool(torch.isfinite(mu).all()):
        bad = int((~torch.isfinite(mu)).sum())
        raise ValueError(f"mu holds {bad} NaN or infinite displacements of {mu.numel()}; displacements must be finite")


def check_pointers(weight: Tensor, unit_ptr: Tensor | None) -> None:
    """Raise where unit pointers do not add up."""
    if unit_ptr is None:
        return
    ends_match = int(unit_ptr[0]) == 0 and int(unit_ptr[-1]) == weight.numel()
    if not ends_match or bool((unit_ptr.diff() < 0).any()):
        raise ValueError(
            f"unit_ptr must rise from 0 to the number of units ({weight.numel()}); "
            f"got first {int(unit_ptr[0])}, last {int(unit_ptr[-1])}"
        )
