"""The outcome of a rescale, in numbers: every layer before and after, and the proof."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from daukit.models.structure import Description
from daukit.rescale.modes import Mode
from daukit.results import Count, Positive, Size


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """One layer before and after. Lengths are in pixels of the layer's own input, so that a dilation counts.

    Attributes:
        name: the layer's name in the network.
        type: class before.
        type_after: class after; a linear layer becomes a convolution.
        factor: multiplies displacements in mode paper, dilations in mode exact.
        limit_before: largest displacement per axis that the layer allowed, in pixels; None: no limit, or no DAU layer.
        limit_after: largest displacement per axis that it allows after.
        displacement_before: largest displacement per axis that it held, in pixels; None: no DAU layer, or no units.
        displacement_after: largest displacement per axis that it holds after.
        dilation_before: dilation (y, x); 1 for a layer that has none.
        dilation_after: dilation (y, x) after.
        stride_before: stride (y, x); 1 for a layer that has none.
        stride_after: stride (y, x) after.
        clipped: units beyond the old limit after the rescale, which that limit would have clipped.
        beyond: units beyond the new limit, as they were beyond the old one before; training on will clip them.
        rounded: largest distance in pixels between where a unit reads, rounded to whole pixels, and the factor times
            where it read before; None: no layer of whole pixels, or no units.
    """

    name: str
    type: str
    type_after: str
    factor: Positive
    limit_before: Positive | None
    limit_after: Positive | None
    displacement_before: Positive | None
    displacement_after: Positive | None
    dilation_before: tuple[Size, Size]
    dilation_after: tuple[Size, Size]
    stride_before: tuple[Size, Size]
    stride_after: tuple[Size, Size]
    clipped: Count
    beyond: Count
    rounded: Positive | None = None


EXACT_LIMIT = 1e-6
"""Largest relative difference that mode ``exact`` may show."""


@dataclass(frozen=True)
class Difference:
    """The difference of two networks' outputs at the positions that both have.

    Attributes:
        largest: largest absolute difference.
        relative: largest difference as a share of the largest absolute output of the network before.
        positions: positions compared in every channel.
        missing: positions of the network before that the rescaled one lacks.
        input_size: height and width of the noise that both networks saw.
    """

    largest: Positive
    relative: Positive
    positions: Count
    missing: Count
    input_size: tuple[Size, Size]

    @property
    def is_exact(self) -> bool:
        """True if it keeps the promise of mode ``exact``."""
        return self.relative <= EXACT_LIMIT and not self.missing


@dataclass(frozen=True)
class RescaleReport:
    """The changes that a rescale made, and where it ended.

    Attributes:
        mode: ``"paper"`` or ``"exact"``.
        layers: every layer with weights, and every other one that changed, in the network's order.
        pools: names of the pools taken out (``paper``) or made stride 1 (``exact``).
        strides: names of the layers made stride 1.
        stopped_before: names of the global pools, and resizings to a given size, where the rescale ended; what follows
            them is as it was.
        gates: names of the global pools whose result is joined to a map again; in mode ``exact`` they read the former
            positions only.
        proof: how far mode ``exact`` was from the network before, when it was made; None for mode ``paper``, and where
            no input size was known and none of the usual ones would do.
        head_position: (y, x) of the dense predictions that holds what the network's linear head gave before; None
            where no linear layer became a window.
    """

    mode: Mode
    layers: tuple[LayerChange, ...]
    pools: tuple[str, ...] = ()
    strides: tuple[str, ...] = ()
    stopped_before: tuple[str, ...] = ()
    head_position: tuple[int, int] | None = None
    gates: tuple[str, ...] = ()
    proof: Difference | None = None

    @property
    def clipped(self) -> int:
        """Units of the whole network that the old limits would have clipped."""
        return sum(layer.clipped for layer in self.layers)

    @property
    def rounded(self) -> float | None:
        """How far rounding to whole pixels moved any unit of the network, in pixels; None: no layer rounds."""
        return max((layer.rounded for layer in self.layers if layer.rounded is not None), default=None)

    @property
    def beyond(self) -> int:
        """Units of the whole network that lie over their new limits."""
        return sum(layer.beyond for layer in self.layers)


def dau_change(
    name: str, factor: float, before: Description, after: Description, mu_before: Tensor, mu_after: Tensor
) -> LayerChange:
    """The change of one DAU layer, from its two descriptions and its two mu of shape (2, units)."""
    return LayerChange(
        name=name,
        type=before["type"],
        type_after=after["type"],
        factor=factor,
        limit_before=_limit(before),
        limit_after=_limit(after),
        displacement_before=_largest(before, mu_before),
        displacement_after=_largest(after, mu_after),
        dilation_before=tuple(before["dilation"]),
        dilation_after=tuple(after["dilation"]),
        stride_before=tuple(before["stride"]),
        stride_after=tuple(after["stride"]),
        clipped=_over(before, mu_after),
        beyond=_over(after, mu_after),
        rounded=_rounded(before, after, factor, mu_before, mu_after) if mu_before.numel() else None,
    )


def _rounded(
    before: Description, after: Description, factor: float, mu_before: Tensor, mu_after: Tensor
) -> float | None:
    if not after.get("whole_pixels", False):
        return None
    old, new = (
        mu.double().reshape(2, -1).round() * mu.new_tensor(description["dilation"]).double()[:, None]
        for mu, description in ((mu_before, before), (mu_after, after))
    )
    return float((new - factor * old).norm(dim=0).max())


def _over(description: Description, mu: Tensor) -> int:
    """Units of ``mu`` that the description's limit would clip."""
    limit = description["max_displacement"]
    return 0 if limit is None else int((mu.abs() > limit).any(0).sum())


def _limit(description: Description) -> float | None:
    limit = description["max_displacement"]
    return None if limit is None else float(limit * max(description["dilation"]))


def _largest(description: Description, mu: Tensor) -> float | None:
    if not mu.numel():
        return None
    read = mu.round() if description.get("whole_pixels", False) else mu
    dilation = mu.new_tensor(description["dilation"])[:, None]
    return float((dilation * read).abs().max())
