"""Theoretical receptive fields of layers: their strides, sizes and centers in input pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from daukit.nn.wrappers import unwrapped
from daukit.receptive_field.axes import Axis
from daukit.receptive_field.calls import Axes
from daukit.receptive_field.forward import find_layers, frozen
from daukit.receptive_field.layers import trace_layers
from daukit.receptive_field.tracing import displacement_limits


@dataclass(frozen=True)
class TheoreticalField:
    """The part of the input that a layer's output positions can see; positions are (y, x) in input pixels.

    Attributes:
        stride: input pixels from one position to the next.
        size: pixels that a position can depend on, those beyond the border included; None: all, or not known.
        center: the pixel that position (0, 0) looks at; None behind an operation of unknown arithmetic.
    """

    stride: tuple[float, float]
    size: tuple[int | None, int | None]
    center: tuple[float, float] | None

    @classmethod
    def of(cls, axes: Axes | None) -> TheoreticalField | None:
        """The field of a map with these axes; None if they are not known or do not run through it."""
        if axes is None or any(axis.place is None for axis in axes):
            return None
        y, x = axes
        center = None if y.shift is None or x.shift is None else (y.shift, x.shift)
        return cls((y.scale, x.scale), (_extent(y), _extent(x)), center)

    def looks_at(self, position: tuple[int, int]) -> tuple[float, float] | None:
        """The pixel that ``position`` looks at."""
        if self.center is None:
            return None
        y, x = (c + s * p for c, s, p in zip(self.center, self.stride, position, strict=True))
        return y, x


def _extent(axis: Axis) -> int | None:
    return None if math.isinf(axis.low) or math.isinf(axis.high) else math.floor(axis.high - axis.low + 1 + 1e-9)


def theoretical_receptive_field(
    model: nn.Module,
    layers: str | Sequence[str],
    image: Tensor,
    *,
    limits: bool = False,
    tokens: tuple[int, int] | None = None,
) -> list[TheoreticalField | None]:
    """Find the part of the input that layers can see, by their strides, paddings, windows and displacements.

    Args:
        model: any module.
        layers: names of modules that give maps, as in ``daukit.effective_receptive_field``.
        image: (1, C, H, W), as the model takes it.
        limits: count DAU units as far out as their layers allow, instead of where they are.
        tokens: as in ``daukit.effective_receptive_field``.

    Returns:
        One field per layer; None behind an operation of unknown arithmetic.

    Raises:
        ValueError: as in ``daukit.effective_receptive_field``.
        NetworkError: the model's forward fails on such an input.

    Example:
        >>> (field,) = theoretical_receptive_field(nn.Conv2d(1, 1, 5, stride=2), "", torch.rand(1, 1, 9, 9))
        >>> field.size, field.stride, field.center
        ((5, 5), (2.0, 2.0), (2.0, 2.0))
    """
    model = unwrapped(model, "theoretical_receptive_field")
    names = [layers] if isinstance(layers, str) else list(layers)
    with frozen(model):
        farthest = displacement_limits(model) if limits else None
        traced = trace_layers(model, find_layers(model, names), image, limits=farthest, tokens=tokens).layers
    return [TheoreticalField.of(traced[name].axes) for name in names]
