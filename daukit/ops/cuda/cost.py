"""The choice between the dense path and the CUDA kernels: a rule on counted operations and data-sheet rates.

Costs are in float32 multiply-adds per output pixel and pair of channels. No rate was measured; they stand in one table,
which times of ``daukit bench --device cuda`` can replace.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from daukit.ops.contract import Tensors
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.geometry import Geometry
from daukit.ops.precision import tf32_allowed

Precision = Literal["float32", "tf32", "half"]
Box = tuple[int, int]


class Rates(NamedTuple):
    """The rates of one generation of GPUs.

    Attributes:
        fixed, per_unit: cost of a pair of channels in the DAU kernels, and of each of its units.
        tf32, half: cost of one multiply-add in tensor cores; 1 where they are no faster than float32 ones.
        bytes_per_operation: bytes that memory moves in the time of one float32 multiply-add.
    """

    fixed: float
    per_unit: float
    tf32: float
    half: float
    bytes_per_operation: float


RATES = {
    75: Rates(0.0, 3.7, 1, 1 / 8, 0.08),
    80: Rates(0.0, 3.7, 1 / 8, 1 / 16, 0.21),
    86: Rates(0.8, 6.0, 1, 1 / 2, 0.05),
    89: Rates(0.8, 6.0, 1, 1 / 2, 0.02),
    90: Rates(0.8, 6.0, 1 / 7.4, 1 / 14.8, 0.10),
    100: Rates(0.8, 6.0, 1 / 15, 1 / 30, 0.21),
    120: Rates(0.8, 6.0, 1, 1 / 2, 0.03),
}
"""By compute capability times ten: T4, A100, RTX 3090, RTX 4090, H100, B200, RTX 5090."""

FLOAT32_UTILISATION = 0.85
TENSOR_UTILISATION = 0.65
"""Shares of their peaks that dense convolutions are assumed to reach."""

MARGIN = 0.8
"""The dense path must be this much faster: its costs are the less certain ones, and it waits for the GPU."""


def allowed_precision(dtype: torch.dtype) -> Precision:
    """The lowest precision that the caller allowed: by the input's dtype, or by torch's setting for float32."""
    if dtype in (torch.float16, torch.bfloat16):
        return "half"
    return "tf32" if tf32_allowed() else "float32"


def dense_is_cheaper(geo: Geometry, units: float, box: Box, capability: int, precision: Precision) -> bool:
    """True if convolutions with the whole box of taps are cheaper than ``units`` units per pair.

    Args:
        geo: sizes of the call.
        units: units of a pair, on average.
        box: taps (y, x) that the units' cells touch, all together.
        capability: compute capability times ten.
        precision: the lowest that the caller allowed.
    """
    rates = RATES[max((known for known in RATES if known <= capability), default=min(RATES))]
    pixels = geo.batch * geo.out_size[0] * geo.out_size[1]
    taps = box[0] * box[1]
    rate, utilisation = {
        "float32": (1.0, FLOAT32_UTILISATION),
        "tf32": (rates.tf32, TENSOR_UTILISATION if rates.tf32 < 1 else FLOAT32_UTILISATION),
        "half": (rates.half, TENSOR_UTILISATION),
    }[precision]
    # The kernel is written and read once, four bytes a tap, whatever the number of pixels.
    dense = taps * rate / utilisation + 8 * taps / rates.bytes_per_operation / max(pixels, 1)
    return dense < MARGIN * (rates.fixed + rates.per_unit * units)


def prefers_dense(tensors: Tensors, geo: Geometry) -> bool:
    """The rule for one call, from the box of the taps that its units really touch.

    Reading that box waits for the GPU. So it is read only where tensor cores may be used, which make the dense path
    likely, and never while a CUDA graph is captured; else the box of the expected displacements stands for it.
    """
    input, weight, mu = tensors.input, tensors.weight, tensors.mu
    precision, box = allowed_precision(input.dtype), expected_box(geo)
    units = weight.numel() * geo.groups / (geo.in_channels * geo.out_channels)
    capability = LAUNCHERS[input.device.type].gpu(input.device).capability
    if dense_is_cheaper(geo, units, box, capability, precision):
        return True
    if precision == "float32" or not mu.numel() or (mu.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return dense_is_cheaper(geo, units, touched_box(geo, mu), capability, precision)


def expected_box(geo: Geometry) -> Box:
    """Taps within ``geo.limit`` that can lie inside the image."""
    y, x = (min(2 * geo.limit + 1, _most_taps(geo, axis)) for axis in (0, 1))
    return y, x


def touched_box(geo: Geometry, mu: Tensor) -> Box:
    """Taps from the first to the last that a unit's cell touches; reads ``mu`` (2, ...), so it waits for the GPU."""
    flat = mu.detach().reshape(2, -1)
    low, high = torch.stack([flat.amin(1), flat.amax(1)]).floor().tolist()
    # A NaN compares with nothing: such displacements are left to the operator's own check.
    extents = [high[axis] - low[axis] + 2 for axis in (0, 1)]
    y, x = (int(e) if e <= (most := _most_taps(geo, axis)) else most for axis, e in enumerate(extents))
    return y, x


def _most_taps(geo: Geometry, axis: int) -> int:
    """Taps that lie inside the image at some output position."""
    return 2 * (-(-geo.in_size[axis] // geo.dilation[axis])) - 1
