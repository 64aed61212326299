"""One effective receptive field in numbers: where it lies, how far it spreads, what its contours enclose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from daukit.erf.intervals import ROUNDING
from daukit.erf.samples import areas_and_levels
from daukit.receptive_field import TheoreticalField

MASSES = (0.25, 0.5, 0.75, 0.999)
"""Shares of the influence that the contours enclose (paper, Fig. 8)."""

About = Literal["center", "centroid"]
"""The point that distances are measured from."""


@dataclass(frozen=True)
class Contour:
    """The smallest set of pixels that holds a share of the influence.

    Of pixels with equal influence at the set's edge, only as many count as the share needs: ``area`` is the least.

    Attributes:
        mass: the share, within (0, 1].
        area: number of pixels in the set.
        level: influence of the least influential pixel in the set; every pixel above it is in the set.
        reach: radius in pixels of the smallest disc about the field's ``origin`` that holds the share.
        area_interval: least and largest area of a 95 % confidence interval for infinitely many images like those
            measured; None for one image, or where signed influences cancel too far to tell.
        radius_error: standard error of the radius that random probes add; None where all channels were probed.
    """

    mass: float
    area: int
    level: float
    reach: float
    area_interval: tuple[int, int] | None = None
    radius_error: float | None = None

    @property
    def radius(self) -> float:
        """Radius in pixels of the disc of the same area."""
        return math.sqrt(self.area / math.pi)

    @property
    def radius_interval(self) -> tuple[float, float] | None:
        """Radii of the discs of the areas of the interval, which thus hold the radius as often."""
        if self.area_interval is None:
            return None
        low, high = (math.sqrt(area / math.pi) for area in self.area_interval)
        return low, high

    @property
    def area_error(self) -> float | None:
        """Standard error of the area that random probes add: 2 pi times radius times its error."""
        return None if self.radius_error is None else 2 * math.pi * self.radius * self.radius_error

    def is_stable(self, share: float) -> bool:
        """Check that the radius's interval reaches at most ``share`` of the radius to either side of its middle."""
        if self.radius_interval is None:
            return False
        low, high = self.radius_interval
        return (high - low) / 2 <= share * self.radius


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of one layer; positions are (y, x) in input pixels from the first pixel's middle.

    Attributes:
        name: the layer's name.
        map: (H, W) float64, scaled so that the absolute values sum to 1; only the measure ``signed`` has negative ones.
        center: the input position that the probed output looks at by the arithmetic of strides and paddings; None
            behind an operation of unknown arithmetic.
        origin: the point that ``reach`` is measured from: the center, or the centroid if there is no center or the
            centroid was asked for.
        centroid: mean position, weighted by influence.
        std: standard deviation of the position per axis, weighted by influence.
        contours: one for each share of the influence, ascending.
        border_mass: share of the influence that lies on the outermost pixels of the input.
        clipped: whether the largest contour reaches the outermost pixels: the input may be too small for the field.
        theory: the theoretical field, by the arithmetic of strides, paddings, windows and displacements; None if it is
            not known.
        limit: the same, were every unit of DAU layers as far out as its layer allows.
        images: how many were averaged.
        layout: of the layer's output, as ``"(N, C, h, w)"``.
        assumed: whether the layout is the most likely one, as the network's operations do not determine it.
    """

    name: str
    map: Tensor
    center: tuple[float, float] | None
    origin: tuple[float, float]
    centroid: tuple[float, float]
    std: tuple[float, float]
    contours: tuple[Contour, ...]
    border_mass: float
    clipped: bool
    theory: TheoreticalField | None = None
    limit: TheoreticalField | None = None
    images: int = 1
    layout: str = "(N, C, h, w)"
    assumed: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        gradient: Tensor,
        center: tuple[float, float] | None,
        masses: Sequence[float] = MASSES,
        about: About = "center",
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
        origin = center if center is not None and about == "center" else (y, x)
        contours = _contours(influence, sorted(masses), origin)
        border = torch.cat([influence[0], influence[-1], influence[1:-1, 0], influence[1:-1, -1]])
        return cls(
            name, map, center, origin, (y, x), (std_y, std_x), contours,
            border_mass=float(border.sum()), clipped=bool((border >= contours[-1].level).any()),
        )  # fmt: skip

    def with_certainty(
        self, area_intervals: Sequence[tuple[int, int] | None], radius_errors: Sequence[float] | None
    ) -> ReceptiveField:
        """The field with the intervals of its areas over images, and the errors of its radii by probes."""
        errors: Sequence[float | None] = radius_errors or [None] * len(self.contours)
        contours = (
            replace(contour, area_interval=interval, radius_error=error)
            for contour, interval, error in zip(self.contours, area_intervals, errors, strict=True)
        )
        return replace(self, contours=tuple(contours))


def _moments(profile: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the position along one axis; ``profile`` (size,) sums to 1."""
    position = torch.arange(len(profile), dtype=profile.dtype)
    mean = (profile * position).sum()
    return float(mean), math.sqrt(float((profile * (position - mean) ** 2).sum()))


def _contours(influence: Tensor, masses: Sequence[float], origin: tuple[float, float]) -> tuple[Contour, ...]:
    rows, columns = (
        torch.arange(size, dtype=torch.float64) - zero for size, zero in zip(influence.shape, origin, strict=False)
    )
    distance = (rows[:, None] ** 2 + columns**2).flatten().sqrt()
    order = distance.argsort()
    held = influence.flatten()[order].cumsum(0)
    enough = held.new_tensor([(mass - ROUNDING) * float(held[-1]) for mass in masses])
    reaches = distance[order][torch.searchsorted(held, enough)].tolist()
    sets = areas_and_levels(influence, masses)
    return tuple(Contour(m, area, level, reach) for m, (area, level), reach in zip(masses, sets, reaches, strict=True))
