"""One layer of a checkpoint: its units at whole pixels, refitted on its filters, and how far that is from the layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, LayerUnits
from daukit.errors import CheckpointError
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius, blur_taps
from daukit.snapping.filters import Snapped, Target, nearest, snap_filters, squared_errors
from daukit.snapping.kernels import Autocorrelation
from daukit.snapping.outputs import PixelUnits

LARGEST_FILTER = 4096
"""Units of one filter up to which a layer is snapped: a matrix of inner products then takes 128 MiB."""

_CHUNK = 2**17
"""Pairs of units of one filter that are looked at at a time."""


@dataclass(frozen=True)
class SnappedUnits:
    """The units of a layer at whole pixels.

    Attributes:
        units: as they were.
        pixel: (2, units) float64, whole numbers.
        weight: (units,) float64.
        keep: (units,); False for a unit that is merged into another one.
        taps: (2 radius + 1,) float64, of the layer's blur.
        moved: (units,) float64, in pixels of the layer's input.
        error_rounded: change of the filters with every unit at its nearest pixel and its old weight, as a share of
            their norm.
        error: the same with these pixels and weights.
    """

    units: LayerUnits
    pixel: Tensor
    weight: Tensor
    keep: Tensor
    taps: Tensor
    moved: Tensor
    error_rounded: float
    error: float

    def placed(self) -> PixelUnits:
        """Those units that are kept, for ``refit_outputs``."""
        about = self.units.description
        return PixelUnits(
            pixel=self.pixel[:, self.keep],
            pair=self.units.pair[self.keep],
            out_channels=about["out_channels"],
            in_channels=about["in_channels"],
            groups=about["groups"],
            stride=tuple(about["stride"]),
            dilation=tuple(about["dilation"]),
            taps=self.taps,
        )


def snap_layer(checkpoint: Checkpoint, name: str, *, to: Target = "best", refit: bool = True) -> SnappedUnits:
    """Snap a layer of the efficient form.

    Args:
        checkpoint: what has it.
        name: of the layer.
        to: as in ``snap_filters``.
        refit: refit the weights; False keeps them, and those of units on one pixel add up.

    Raises:
        CheckpointError: the layer's tensors are damaged or hold NaN, or a filter has more units than can be snapped.
    """
    layer = checkpoint.layer(name)
    if layer.counts.numel() and int(layer.counts.max()) > LARGEST_FILTER:
        raise CheckpointError(
            f"{checkpoint.called}: a filter of {name!r} has {int(layer.counts.max()):,} units, and up to "
            f"{LARGEST_FILTER:,} can be snapped; prune or merge them first"
        )
    taps = blur_of(checkpoint, layer)
    norm, smooth = Autocorrelation.of(taps), Autocorrelation.smooth(taps)
    limit = layer.description["max_displacement"]
    weight, mu = layer.weight.double(), layer.mu.double()
    pixel, new, keep = nearest(mu, limit), weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    errors = torch.zeros(3, dtype=torch.float64)  # squared: rounded, snapped, of the filters themselves
    starts = layer.counts.cumsum(0) - layer.counts
    # Filters of equally many units at a time, so that their units form a rectangle.
    for count in filter(None, layer.counts.unique().tolist()):
        for first in starts[layer.counts == count].split(max(1, _CHUNK // count**2)):
            rows = first[:, None] + torch.arange(count)  # (filters, count), units by index
            own, at = weight[rows], mu[:, rows]
            rounded, square = squared_errors(own, at, own, pixel[:, rows], norm)
            snapped = snap_filters(own, at, smooth, to=to, limit=limit) if refit else _joined(own, pixel[:, rows])
            changed, _ = squared_errors(own, at, snapped.weight, snapped.pixel, norm)
            errors += torch.stack([rounded.sum(), changed.sum(), square.sum()])
            still = (at == snapped.pixel).all(0).all(1, keepdim=True) & snapped.keep.all(1, keepdim=True)
            pixel[:, rows], new[rows] = snapped.pixel, torch.where(still, own, snapped.weight)
            keep[rows] = snapped.keep
    dilation = torch.tensor(layer.description["dilation"], dtype=torch.float64)[:, None]
    scale = float(errors[2]) or 1.0
    return SnappedUnits(
        units=layer, pixel=pixel, weight=new, keep=keep, taps=taps,
        moved=torch.hypot(*(dilation * (pixel - mu))),
        error_rounded=math.sqrt(float(errors[0]) / scale), error=math.sqrt(float(errors[1]) / scale),
    )  # fmt: skip


def blur_of(checkpoint: Checkpoint, layer: LayerUnits) -> Tensor:
    """The taps of a layer's blur, as the operator has them: a learned sigma has the radius of the largest one."""
    learned = checkpoint.tensors.get(f"{layer.name}.sigma")
    sigma = float(layer.description["sigma"] if learned is None else learned)
    return blur_taps(
        torch.tensor(sigma, dtype=torch.float64), blur_radius(sigma if learned is None else SIGMA_BOUNDS[1])
    ).gaussian


def _joined(weight: Tensor, pixel: Tensor) -> Snapped:
    """Units at their pixels with their own weights, where units of a filter on one pixel are one."""
    same = (pixel[..., :, None] == pixel[..., None, :]).all(0)  # (filters, units, units)
    keep = ~same.tril(-1).any(-1)
    return Snapped(pixel, torch.einsum("fij,fj->fi", same.to(weight.dtype), weight) * keep, keep)
