"""The nonzero weights of a convolution as units of a DAU layer at whole pixels: the same outputs, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daukit.nn import DAUConv2d, DAULinear
from daukit.nn.layer import unit_pointers

FARTHEST = 32_767
"""Pixels from its output at which a tap may lie to become a unit."""

MOST = 65_535
"""Units that a pair of a ragged layer may have."""


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution as a DAU layer has it.

    Attributes:
        dilation: of the layer.
        places: displacement of each tap, in dilated pixels.
        trim: pixels at the far end of the image that have no output; below 0 where there are more outputs than pixels.
    """

    dilation: int
    places: tuple[int, ...]
    trim: int


def why_no_values(weight: Tensor) -> str | None:
    """The reason why a weight has no values that units could have; None where it has."""
    if weight.is_meta:
        return "its weights are on the meta device, which has no values"
    if not weight.is_floating_point():
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    return None


def why_no_units(conv: nn.Conv2d) -> str | None:
    """The reason why no DAU layer reads what ``conv`` reads, or gives as many outputs; None where one does."""
    axes = _axes(conv)
    if conv.padding_mode != "zeros" and conv.padding not in ((0, 0), "valid"):
        return f"it pads by {conv.padding_mode!r}, where a DAU layer reads zeros"
    if min(axis.trim for axis in axes) < 0:
        return (
            f"its padding {conv.padding} is more than half of what its window reaches, so it has more outputs than the "
            "image has pixels"
        )
    farthest = max(axis.dilation * abs(place) for axis in axes for place in axis.places)
    if farthest > FARTHEST:
        return f"its window reaches {farthest:,} pixels from its output, and a unit at most {FARTHEST:,}"
    return None


@torch.no_grad()
def units_of(conv: nn.Conv2d, weight: Tensor) -> DAUConv2d:
    """A ragged layer of whole pixels that computes what ``conv`` would with ``weight``, one unit per nonzero weight.

    Args:
        conv: a convolution for which ``why_no_units`` has no reason.
        weight: (O, C / groups, height, width), finite.
    """
    y, x = _axes(conv)
    kept = weight != 0  # (O, C / groups, height, width); a negative zero is one
    _, _, row, column = kept.nonzero(as_tuple=True)
    places = [torch.tensor(axis.places, device=weight.device)[at] for axis, at in ((y, row), (x, column))]
    mu = torch.stack(places)  # (2, units)
    sy, sx = conv.stride
    with torch.device("meta"):  # its own units are never filled in
        layer = DAUConv2d(
            conv.in_channels, conv.out_channels, 1, max_displacement=float(mu.abs().max()) if mu.numel() else 0.0,
            sigma=0.0, stride=(sy, sx), dilation=(y.dilation, x.dilation), groups=conv.groups,
            bias=conv.bias is not None, whole_pixels=True, trim=(y.trim, x.trim),
        )  # fmt: skip
    dtype = weight.dtype if weight.dtype == torch.float64 else torch.float32
    layer.weight = nn.Parameter(weight[kept].to(dtype), requires_grad=conv.weight.requires_grad)
    layer.mu = nn.Parameter(mu.to(dtype), requires_grad=False)
    layer.unit_ptr = unit_pointers(kept.flatten(2).sum(2).flatten())
    if conv.bias is not None:
        layer.bias = nn.Parameter(conv.bias.detach().to(dtype, copy=True), requires_grad=conv.bias.requires_grad)
    return layer.train(conv.training)


@torch.no_grad()
def linear_units_of(linear: nn.Linear, weight: Tensor) -> DAULinear:
    """As ``units_of``, of a linear layer, with ``weight`` (out_features, in_features)."""
    with torch.device("meta"):  # nothing of these is filled in
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=False)
        layer = DAULinear(linear.in_features, linear.out_features)
    conv.weight, conv.bias = linear.weight, linear.bias  # what learns of them goes on learning
    layer.dau = units_of(conv, weight[:, :, None, None])
    return layer.train(linear.training)


def _axes(conv: nn.Conv2d) -> tuple[_Axis, _Axis]:
    """The axes (y, x) of a convolution."""
    first, second = (
        _axis(conv.kernel_size[i], conv.dilation[i], conv.padding if isinstance(conv.padding, str) else conv.padding[i])
        for i in (0, 1)
    )
    return first, second


def _axis(taps: int, dilation: int, padding: int | str) -> _Axis:
    """One axis: tap ``t`` lies at ``dilation * t - padding`` from the output's pixel."""
    extent = dilation * (taps - 1)
    # As torch divides "same" padding: an odd sum has its larger part behind the image.
    before = {"same": extent // 2, "valid": 0}[padding] if isinstance(padding, str) else padding
    trim = 0 if padding == "same" else extent - 2 * before
    if taps == 1:
        dilation = 1
    if before % dilation:
        return _Axis(1, tuple(dilation * tap - before for tap in range(taps)), trim)
    return _Axis(dilation, tuple(tap - before // dilation for tap in range(taps)), trim)
