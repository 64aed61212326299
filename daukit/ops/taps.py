"""Units as dense filters."""

from __future__ import annotations

from torch import Tensor


def tap_kernel(weight: Tensor, mu: Tensor, pair: Tensor, pairs: int) -> tuple[Tensor, tuple[int, int]]:
    """The bilinear taps of all units as dense filters on the smallest window that holds them and the centre.

    Args:
        weight: (units,).
        mu: (2, units), displacement (y, x) in dilated pixels.
        pair: (units,) int64, the filter that owns each unit.
        pairs: number of filters.

    Returns:
        Filters (pairs, height, width), and the place of their first tap (y, x), neither of them above 0.
    """
    floor = mu.floor()
    fraction = mu - floor
    ends = floor + (fraction > 0)  # at an integer the second tap has no weight
    low = [min(0, int(axis.min())) if axis.numel() else 0 for axis in floor]
    high = [max(0, int(axis.max())) if axis.numel() else 0 for axis in ends]
    height, width = (last - first + 1 for first, last in zip(low, high, strict=True))
    kernel = weight.new_zeros(pairs * height * width)
    for ty in (0, 1):
        for tx in (0, 1):
            share = (fraction[0] if ty else 1 - fraction[0]) * (fraction[1] if tx else 1 - fraction[1])
            row, column = floor[0].long() + ty - low[0], floor[1].long() + tx - low[1]
            used = share > 0
            at = (pair * height + row) * width + column
            kernel.index_add_(0, at[used], (weight * share)[used])
    return kernel.reshape(pairs, height, width), (low[0], low[1])
