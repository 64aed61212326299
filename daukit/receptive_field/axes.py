"""One axis of a map: at which input pixels its positions look, and on which ones they depend.

All of it is stride and padding arithmetic (Araujo et al., 2019, "Computing receptive fields of convolutional neural
networks"), kept per axis and with the position that a tensor's dimensions have for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

_FINEST = 1024
"""Scales are taken as fractions of at most this denominator."""


class Place(NamedTuple):
    """The place of an axis in a tensor: along dimension ``dim``, one position every ``inner`` elements of it."""

    dim: int
    inner: int = 1


@dataclass(frozen=True)
class Axis:
    """View of the positions along one axis on the input's pixels along the same axis.

    Position ``p`` looks at pixel ``scale * p + shift`` and depends on none outside
    ``[scale * p + low, scale * p + high]``. Bounds count positions beyond the input's border as if there were pixels.

    Attributes:
        size: number of positions.
        place: where the axis runs in the tensor; None if it does not any more (after a mean) or is not known.
        scale: input pixels from one position to the next.
        shift: the pixel that position 0 looks at; None where that is not known.
        low, high: bounds of what position 0 depends on; infinite where it may be everything.
        first, last: the same bounds, which also count the pixel ``scale * p`` of every map on the way: a crop of the
            input must hold them so that those positions are in its maps too.
        steps: scales of all the maps on the way.
        shifts_along: moving the input by whole steps moves the values with it, borders aside.
    """

    size: int
    place: Place | None
    scale: float = 1.0
    shift: float | None = 0.0
    low: float = 0.0
    high: float = 0.0
    first: float = 0.0
    last: float = 0.0
    steps: frozenset[float] = frozenset({1.0})
    shifts_along: bool = True

    @property
    def is_local(self) -> bool:
        """Whether a position depends on a part of the input alone that moves with it."""
        bounds = (self.low, self.high, self.first, self.last)
        return self.shifts_along and self.place is not None and not any(math.isinf(bound) for bound in bounds)

    def window(
        self, size: int, stride: float, start: float, end: float, *, middle: float | None = None, beyond: float = 0.0
    ) -> Axis:
        """The axis of an operation whose position ``q`` reads positions ``stride * q + start`` to ``... + end``.

        Args:
            size: number of positions of the result.
            stride: positions of this axis per position of the result.
            start: first position that position 0 reads.
            end: the last one.
            middle: the one that it looks at; default: half way between the two.
            beyond: positions behind the last one read that must be there too, for the result to be as long.
        """
        middle = (start + end) / 2 if middle is None else middle
        scale = self.scale * stride
        return replace(
            self,
            size=size,
            scale=scale,
            shift=None if self.shift is None else self.shift + self.scale * middle,
            low=self.low + self.scale * start,
            high=self.high + self.scale * end,
            first=min(0.0, self.first + self.scale * start),
            last=max(0.0, self.last + self.scale * (end + beyond)),
            steps=self.steps | {scale},
        )

    def unlimited(self) -> Axis:
        """The same positions, each of which may depend on the whole input."""
        return replace(self, low=-math.inf, high=math.inf, shifts_along=False)

    def nowhere(self) -> Axis:
        """The axis when it does not run through the tensor any more."""
        return replace(self.unlimited(), place=None, shift=None)

    def at(self, dim: int | None) -> Axis:
        """The same axis along dimension ``dim``; nowhere for None."""
        if self.place is None or dim is None:
            return self.nowhere()
        return replace(self, place=Place(dim, self.place.inner))

    def fixed(self) -> Axis:
        """The same axis, whose values depend on where in the input they are."""
        return replace(self, shifts_along=False)

    def fills(self, shape: Sequence[int]) -> bool:
        """Check that a dimension of a tensor of this shape is the axis and nothing else."""
        return self.place is not None and self.place.inner == 1 and shape[self.place.dim] == self.size

    def regrouped(self, before: Sequence[int], after: Sequence[int]) -> Axis:
        """The axis after a reshape from one shape to another, both read in row-major order."""
        if self.place is None:
            return self
        stride = math.prod(before[self.place.dim + 1 :]) * self.place.inner  # elements from one position to the next
        places = []
        for dim, length in enumerate(after):
            inner = math.prod(after[dim + 1 :])
            if inner and stride % inner == 0 and (inner * length) % (stride * self.size) == 0:
                places.append(Place(dim, stride // inner))
        # Dimensions of one element fit in several places: the one at the same distance from the end is as good as any.
        from_end = self.place.dim - len(before)
        places.sort(key=lambda place: (after[place.dim] != self.size, place.dim - len(after) != from_end))
        return replace(self, place=places[0]) if places else self.nowhere()


def grid_of(axes: Iterable[Axis]) -> int:
    """The fewest pixels of the input that are a whole number of positions on every map on the way."""
    # On a map of scale a / b, a multiple of a is a whole number of positions.
    return math.lcm(*(Fraction(step).limit_denominator(_FINEST).numerator for axis in axes for step in axis.steps))


def merge(branches: Sequence[Axis]) -> Axis:
    """The axis of values made of several maps, position by position; branches that disagree count equally."""
    placed = [axis for axis in branches if axis.place is not None]
    if not placed:
        return branches[0]
    if len({(axis.place, axis.size) for axis in placed}) > 1:
        return placed[0].nowhere()
    scale = sum(axis.scale for axis in placed) / len(placed)
    looks = [axis.shift for axis in placed if axis.shift is not None]
    same = all(axis.scale == scale for axis in placed)
    merged = Axis(
        placed[0].size,
        placed[0].place,
        scale,
        sum(looks) / len(looks) if looks else None,
        low=min(axis.low for axis in placed),
        high=max(axis.high for axis in placed),
        first=min(axis.first for axis in placed),
        last=max(axis.last for axis in placed),
        steps=frozenset().union(*(axis.steps for axis in placed)),
        shifts_along=all(axis.shifts_along for axis in placed),
    )
    # A value that all positions share, as a gate's, may come from everywhere.
    return merged if same and len(placed) == len(branches) else merged.unlimited()
