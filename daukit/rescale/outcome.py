"""The outcome of a rescale, in numbers: every layer before and after, and the proof."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from daukit.models.structure import Description
from daukit.rescale.modes import Mode


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after. Pixels are pixels of the layer's own input, so a dilation counts.

    Attributes:
        name, type, type_after: the layer's name, its type before, and after (a linear layer becomes a convolution).
        factor: what the mode multiplied: displacements, or dilation.
        limit_before, limit_after: largest |displacement| per axis that the layer allows, in pixels; None: no limit, or
            not a DAU layer.
        displacement_before, displacement_after: largest |displacement| per axis that it holds, in pixels; None for
            other layers, and for a layer without units.
        dilation_before, dilation_after: (y, x); (1, 1) for a layer that has none.
        stride_before, stride_after: (y, x); (1, 1) for a layer that has none.
        clipped: units of which a limit left at its old ``max_displacement`` would have clipped the displacement.
        beyond: units over the new limit, since they were over the old one before: training on will clip them.
    """

    name: str
    type: str
    type_after: str
    factor: float
    limit_before: float | None = None
    limit_after: float | None = None
    displacement_before: float | None = None
    displacement_after: float | None = None
    dilation_before: tuple[int, int] = (1, 1)
    dilation_after: tuple[int, int] = (1, 1)
    stride_before: tuple[int, int] = (1, 1)
    stride_after: tuple[int, int] = (1, 1)
    clipped: int = 0
    beyond: int = 0


EXACT_LIMIT = 1e-6
"""Largest relative difference that mode ``exact`` may show."""


@dataclass(frozen=True)
class Difference:
    """The distance of two networks at the positions that both have.

    Attributes:
        largest: largest absolute difference.
        relative: the same, as a share of the largest absolute value of the network before.
        positions: positions compared in every channel.
        missing: positions of the network before that the other one lacks.
        input_size: (height, width) of the noise.
    """

    largest: float
    relative: float
    positions: int
    missing: int
    input_size: tuple[int, int]

    @property
    def is_exact(self) -> bool:
        """True where it is what mode ``exact`` promises."""
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
    def beyond(self) -> int:
        """Units of the whole network that lie over their new limits."""
        return sum(layer.beyond for layer in self.layers)


def dau_change(
    name: str, factor: float, before: Description, after: Description, mu_before: Tensor, mu_after: Tensor
) -> LayerChange:
    """The change of one DAU layer, from its two descriptions and its two mu of shape (2, units)."""
    return LayerChange(
        name, before["type"], after["type"], factor,
        limit_before=_limit(before), limit_after=_limit(after),
        displacement_before=_largest(before, mu_before), displacement_after=_largest(after, mu_after),
        dilation_before=tuple(before["dilation"]), dilation_after=tuple(after["dilation"]),
        stride_before=tuple(before["stride"]), stride_after=tuple(after["stride"]),
        clipped=_over(before, mu_after), beyond=_over(after, mu_after),
    )  # fmt: skip


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
    dilation = mu.new_tensor(description["dilation"])[:, None]
    return float((dilation * mu).abs().max())
