"""What a rescale changed, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from daukit.models.structure import Description

Mode = Literal["paper", "exact"]
MODES: tuple[Mode, ...] = ("paper", "exact")


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after. Pixels are pixels of the layer's own input, so a dilation counts.

    Attributes:
        name, type: the layer's name, and its type before.
        factor: what the mode multiplied: displacements, or dilation.
        limit_before, limit_after: largest |displacement| per axis that the layer allows, in pixels; None: no limit, or
            not a DAU layer.
        displacement_before, displacement_after: largest |displacement| per axis that it holds, in pixels; None for
            other layers, and for a layer without units.
        dilation_before, dilation_after: (y, x); (1, 1) for a layer that has none.
        clipped: units of which a limit left at its old ``max_displacement`` would have clipped the displacement.
    """

    name: str
    type: str
    factor: float
    limit_before: float | None = None
    limit_after: float | None = None
    displacement_before: float | None = None
    displacement_after: float | None = None
    dilation_before: tuple[int, int] = (1, 1)
    dilation_after: tuple[int, int] = (1, 1)
    clipped: int = 0


@dataclass(frozen=True)
class RescaleReport:
    """What a rescale did.

    Attributes:
        mode: ``"paper"`` or ``"exact"``.
        layers: every layer with weights, and every other one that changed, in the network's order.
        pools: names of the pools taken out (``paper``) or made stride 1 (``exact``).
        stopped_before: names of the global pools, and resizings to a given size, where the rescale ended; what follows
            them is as it was.
    """

    mode: Mode
    layers: tuple[LayerChange, ...]
    pools: tuple[str, ...] = ()
    stopped_before: tuple[str, ...] = ()

    @property
    def clipped(self) -> int:
        """Units of the whole network that the old limits would have clipped."""
        return sum(layer.clipped for layer in self.layers)


def check_mode(mode: str) -> None:
    """Raise ``ValueError`` for an unknown mode."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")


def dau_change(
    name: str, factor: float, before: Description, after: Description, mu_before: Tensor, mu_after: Tensor
) -> LayerChange:
    """The change of one DAU layer, from its two descriptions and its two mu of shape (2, units)."""
    limit = before["max_displacement"]
    clipped = 0 if limit is None else int((mu_after.abs() > limit).any(0).sum())
    return LayerChange(
        name, before["type"], factor,
        _limit(before), _limit(after), _largest(before, mu_before), _largest(after, mu_after),
        tuple(before["dilation"]), tuple(after["dilation"]), clipped,
    )  # fmt: skip


def _limit(description: Description) -> float | None:
    limit = description["max_displacement"]
    return None if limit is None else float(limit * max(description["dilation"]))


def _largest(description: Description, mu: Tensor) -> float | None:
    if not mu.numel():
        return None
    dilation = mu.new_tensor(description["dilation"])[:, None]
    return float((dilation * mu).abs().max())
