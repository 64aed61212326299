"""Sizes of one call of the operator, worked out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

DEFAULT_MAX_DISPLACEMENT = 4.0
"""The limit of displacements in dilated pixels, where none is given: that of a 9x9 filter."""

DEFAULT_LIMIT = math.ceil(DEFAULT_MAX_DISPLACEMENT)
"""Whole pixels within which displacements are expected, where no limit is given."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one call, all per axis (y, x) where a pair.

    Attributes:
        batch, in_channels, out_channels, groups: as in ``torch.nn.functional.conv2d``.
        in_size: ``(height, width)`` of the input.
        stride, dilation: ``(y, x)``.
        radius: radius of the blur, in taps.
        limit: dilated pixels within which displacements are expected. Results do not depend on it; it sizes windows
            where displacements themselves cannot be looked at.
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    in_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    radius: int
    limit: int = DEFAULT_LIMIT

    @classmethod
    def of(
        cls,
        input: Tensor,
        weight: Tensor,
        unit_ptr: Tensor | None,
        *,
        radius: int,
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        limit: int = DEFAULT_LIMIT,
    ) -> Geometry:
        """Geometry of a call with these arguments; the output channels of ragged units follow from ``unit_ptr``."""
        batch, in_channels, height, width = input.shape
        if unit_ptr is None:
            out_channels = weight.shape[0]
        else:
            out_channels = (unit_ptr.shape[0] - 1) // (in_channels // groups)
        (sy, sx), (dy, dx) = stride, dilation
        return cls(batch, in_channels, out_channels, groups, (height, width), (sy, sx), (dy, dx), radius, limit)

    @property
    def out_size(self) -> tuple[int, int]:
        """``(ceil(height / stride), ceil(width / stride))``: only the stride shrinks the output of a DAU."""
        (height, width), (sy, sx) = self.in_size, self.stride
        return (height + sy - 1) // sy, (width + sx - 1) // sx
