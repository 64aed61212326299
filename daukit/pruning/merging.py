"""Merging units that lie together: one unit of their summed weight, where their weights balance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, LayerUnits, derives
from daukit.errors import CheckpointError
from daukit.limits import check_type, is_number
from daukit.ops.kernels import blur_radius, blur_taps
from daukit.ops.taps import tap_kernel
from daukit.pruning.removal import unit_counts, with_ragged_layers
from daukit.results import Count, Positive

_CHUNK = 2**13
"""Pairs whose filters are compared at a time."""


@dataclass(frozen=True)
class LayerMerge:
    """Units of one layer before and after merging, and what that changed.

    Attributes:
        name: name of the layer.
        units_before: units before.
        units_after: units after.
        moved: farthest move of a unit, in pixels of the layer's input.
        error: norm of the change of the layer's filters divided by the filters' norm, over all pairs, blur included.
    """

    name: str
    units_before: Count
    units_after: Count
    moved: Positive
    error: Positive


class _Merged(NamedTuple):
    """The units of a layer after merging: of those with ``keep``, the new weight and mu; and the farthest move."""

    keep: Tensor
    weight: Tensor
    mu: Tensor
    moved: float


@derives
def merge(checkpoint: Checkpoint, within: float) -> tuple[Checkpoint, tuple[LayerMerge, ...]]:
    """Merge units of one filter whose weights have the same sign and that lie within ``within`` input pixels.

    The two closest become one, at the mean of their positions weighted by ``|w|``, with the sum of their weights; then
    again, until no two of equal sign lie so close. Units of weight zero are left alone. The first of two stays in its
    place in the file. In a layer of whole pixels positions are where units read, and so are those of merged units.

    Args:
        checkpoint: what to merge, a path or a model likewise; it is not changed.
        within: largest distance, at least 0.

    Returns:
        The checkpoint with merged units, and what was done to every layer.

    Raises:
        ValueError: ``within`` is negative or not finite, or a layer has a sigma for every unit.
        CheckpointError: there is no DAU layer, or a layer's tensors are damaged or hold NaN.
    """
    check_type(within, is_number, "within must be a number of pixels")
    if not (within >= 0 and math.isfinite(within)):
        raise ValueError(f"units are merged within a distance of at least 0 pixels, got {within}")
    if not checkpoint.layer_names:
        raise CheckpointError(f"{checkpoint.called}: its network has no DAU layers, so there are no units to merge")
    tensors, done, changed = dict(checkpoint.tensors), [], []
    for name in checkpoint.layer_names:
        layer = checkpoint.layer(name)
        if layer.description["form"] == "gaussian":
            raise ValueError(f"layer {name!r} has a sigma for every unit; only units of one common sigma can be merged")
        merged = _merge_layer(layer, within)
        units = int(merged.keep.count_nonzero())
        error = 0.0
        if units < merged.keep.numel():
            error = _filter_error(checkpoint, layer, merged)
            tensors[f"{name}.weight"], tensors[f"{name}.mu"] = merged.weight[merged.keep], merged.mu[:, merged.keep]
            tensors[f"{name}.unit_counts"] = unit_counts(layer, merged.keep)
            changed.append(name)
        done.append(
            LayerMerge(name, units_before=merged.keep.numel(), units_after=units, moved=merged.moved, error=error)
        )
    return with_ragged_layers(checkpoint, tensors, changed, "merge", {"within": within}), tuple(done)


def _merge_layer(layer: LayerUnits, within: float) -> _Merged:
    dilation = torch.tensor(layer.description["dilation"], dtype=torch.float64)[:, None]
    weight = layer.weight.to(torch.float64, copy=True)  # (units,)
    position = layer.displacements.double() * dilation  # (2, units)
    before = position.clone()
    owner = torch.arange(weight.numel())  # of every unit: the one that it is now part of
    starts = layer.counts.cumsum(0) - layer.counts
    # Pairs of equally many units at a time, so that their units form a rectangle.
    for count in layer.counts.unique().tolist():
        rows = starts[layer.counts == count, None] + torch.arange(count)  # (pairs, count), units by index
        while rows.numel() and count > 1:
            rows, first, second = _closest(rows, weight, position, owner, within)
            total = weight[first] + weight[second]
            shares = torch.stack([weight[first], weight[second]]) / total  # (2 units, pairs), of equal sign
            balance = shares[0] * position[:, first] + shares[1] * position[:, second]
            position[:, first] = (balance / dilation).round() * dilation if layer.reads_whole_pixels else balance
            weight[first] = total
            owner[second] = first
    while not torch.equal(owner, owner[owner]):
        owner = owner[owner]
    keep = owner == torch.arange(owner.numel())
    moved = (position[:, owner] - before).norm(dim=0)
    farthest = float(moved.max()) if moved.numel() else 0.0
    untouched = torch.bincount(owner, minlength=owner.numel())[owner] == 1
    mu = torch.where(untouched, layer.mu, (position / dilation).to(layer.mu.dtype))
    return _Merged(keep, weight.to(layer.weight.dtype), mu, farthest)


def _closest(
    rows: Tensor, weight: Tensor, position: Tensor, owner: Tensor, within: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every row of units (pairs, count) the closest two that may merge: rows that have some, first, second."""
    lies = position[:, rows]  # (2, pairs, count)
    distance = torch.hypot(*(lies[..., :, None] - lies[..., None, :]))  # (pairs, count, count)
    sign = weight[rows].sign() * (owner[rows] == rows)
    alike = (sign[..., :, None] * sign[..., None, :] > 0).triu(1) & (distance <= within)
    nearest, at = torch.where(alike, distance, math.inf).flatten(1).min(1)
    found = nearest.isfinite()
    rows, at = rows[found], at[found, None]
    return rows, rows.gather(1, at // rows.shape[1])[:, 0], rows.gather(1, at % rows.shape[1])[:, 0]


def _filter_error(checkpoint: Checkpoint, layer: LayerUnits, merged: _Merged) -> float:
    """Norm of the change of all filters over their norm."""
    learned = checkpoint.tensors.get(f"{layer.name}.sigma")
    sigma = torch.tensor(layer.description["sigma"]) if learned is None else learned
    gaussian = blur_taps(sigma.double(), blur_radius(float(sigma))).gaussian
    new = torch.where(merged.keep, merged.weight, 0.0)
    owner, pairs, ends = layer.pair, layer.counts.numel(), layer.counts.cumsum(0)
    change = norm = 0.0
    for start in range(0, pairs, _CHUNK):
        count = min(_CHUNK, pairs - start)
        units = slice(int(ends[start] - layer.counts[start]), int(ends[start + count - 1]))
        # Both filters of a pair on one window: those before in the first half, those after in the second.
        weight = torch.cat([layer.weight[units], new[units]]).double()
        mu = torch.cat([layer.mu[:, units], merged.mu[:, units]], dim=1).double()
        mu = mu.round() if layer.reads_whole_pixels else mu
        place = owner[units] - start
        kernel, _ = tap_kernel(weight, mu, torch.cat([place, place + count]), 2 * count)
        before, after = _blurred(kernel, gaussian).split(count)
        change += float((after - before).square().sum())
        norm += float(before.square().sum())
    return math.sqrt(change / norm) if norm else 0.0


def _blurred(kernel: Tensor, gaussian: Tensor) -> Tensor:
    """Filters (pairs, height, width), turned so that their norms, and those of differences, are of blurred filters."""
    along_y, along_x = (_blurring(size, gaussian) for size in kernel.shape[1:])
    return along_y @ kernel @ along_x.T


def _blurring(size: int, taps: Tensor) -> Tensor:
    """A square matrix that gives a line of ``size`` the norm that it has once convolved with ``taps``."""
    matrix = taps.new_zeros(size + taps.numel() - 1, size)
    for i in range(size):
        matrix[i : i + taps.numel(), i] = taps
    triangular: Tensor = torch.linalg.qr(matrix).R
    return triangular
