"""One effective receptive field in numbers: where it lies, how far it spreads, what its contours enclose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MASSES = (0.25, 0.5, 0.75, 0.999)
"""Shares of the influence that the contours enclose (paper, Fig. 8)."""

_ROUNDING = 1e-12
"""Share of the mass that summing in float64 may lose; without it, equal pixels could need one pixel too many."""


@dataclass(frozen=True)
class Contour:
    """The smallest set of pixels that holds a share of the influence.

    Of pixels with equal influence at the set's edge, only as many count as the share needs: ``area`` is the least.

    Attributes:
        mass: the share, within (0, 1].
        area: number of pixels in the set.
        level: influence of the least influential pixel in the set; every pixel above it is in the set.
    """

    mass: float
    area: int
    level: float

    @property
    def radius(self) -> float:
        """Radius in pixels of the disc of the same area."""
        return math.sqrt(self.area / math.pi)


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of one layer; positions are (y, x) in input pixels from the first pixel's middle.

    Attributes:
        name: the layer's name.
        map: (H, W) float64, scaled so that the absolute values sum to 1; only the measure ``signed`` has negative ones.
        center: the input position that the probed output looks at by the arithmetic of strides and paddings; None where
            the way to it holds an operation whose arithmetic is not known (attention, a reshape).
        centroid: mean position, weighted by influence.
        std: standard deviation of the position per axis, weighted by influence.
        contours: one for each share of the influence, ascending.
        border_mass: share of the influence that lies on the outermost pixels of the input.
        clipped: whether the largest contour reaches the outermost pixels: the input may be too small for the field.
    """

    name: str
    map: Tensor
    center: tuple[float, float] | None
    centroid: tuple[float, float]
    std: tuple[float, float]
    contours: tuple[Contour, ...]
    border_mass: float
    clipped: bool

    @classmethod
    def of(
        cls, name: str, gradient: Tensor, center: tuple[float, float] | None, masses: Sequence[float] = MASSES
    ) -> ReceptiveField:
        """The field whose influence is the size of ``gradient`` (H, W) float64, in any unit.

        Raises:
            ValueError: ``gradient`` is zero everywhere, or not finite.
        """
        if not bool(gradient.isfinite().all()):
            raise ValueError(f"layer {name!r}: its gradient holds NaN or infinity; check the weights and the inputs")
        # First by the largest value, whose square is safe from overflow and underflow alike.
        largest = float(gradient.abs().max())
        if largest == 0:
            raise ValueError(f"layer {name!r}: nothing influences the probed output (a dead layer?); leave it out")
        scaled = gradient / largest
        map = scaled / scaled.abs().sum()
        influence = map.abs()
        (y, std_y), (x, std_x) = _moments(influence.sum(1)), _moments(influence.sum(0))
        contours = _contours(influence, sorted(masses))
        border = torch.cat([influence[0], influence[-1], influence[1:-1, 0], influence[1:-1, -1]])
        return cls(
            name, map, center, (y, x), (std_y, std_x), contours,
            border_mass=float(border.sum()), clipped=bool((border >= contours[-1].level).any()),
        )  # fmt: skip


def _moments(profile: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the position along one axis; ``profile`` (size,) sums to 1."""
    position = torch.arange(len(profile), dtype=profile.dtype)
    mean = (profile * position).sum()
    return float(mean), math.sqrt(float((profile * (position - mean) ** 2).sum()))


def _contours(influence: Tensor, masses: Sequence[float]) -> tuple[Contour, ...]:
    descending = influence.flatten().sort(descending=True).values
    held = descending.cumsum(0)
    enough = [(mass - _ROUNDING) * float(held[-1]) for mass in masses]
    last = torch.searchsorted(held, held.new_tensor(enough)).tolist()
    return tuple(Contour(mass, i + 1, float(descending[i])) for mass, i in zip(masses, last, strict=True))
