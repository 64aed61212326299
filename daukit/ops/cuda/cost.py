"""The choice between the CUDA kernels, convolutions and transforms: counted operations and data-sheet rates.

Costs are in float32 multiply-adds of the card. No rate was measured; they stand in one table, which times of ``daukit
bench --device cuda`` can replace. Only shapes, dtypes and settings count: a call takes the same way in eager mode and
while a graph is captured, and nothing waits for the GPU.
"""

from __future__ import annotations

import functools
import itertools
from typing import Literal, NamedTuple

import torch

from daukit.ops.contract import Tensors
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.filters import CHUNK_BYTES, expected_window
from daukit.ops.geometry import Geometry
from daukit.ops.precision import tf32_allowed
from daukit.ops.tiling import Tiling

Precision = Literal["float32", "tf32", "half"]
Way = Literal["cuda", "dense", "dense, channels last", "spectral"]


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
"""Shares of their peaks that convolutions and products of matrices are assumed to reach."""

SPECTRUM_PASSES = 6
"""Times that memory moves the spectrum of a window: written and read by the transform, put in order, multiplied."""

FILTER_PASSES = 4
"""The same of the spectrum of a filter."""

MOST_TAPS = 35 * 35
"""Taps of a window, that of the farthest halo, from which nothing but the kernels is thought of."""

MARGIN = 0.8
"""Another way must be this much faster than the kernels: its costs are the less certain ones."""


def allowed_precision(dtype: torch.dtype) -> Precision:
    """The lowest precision that the caller allowed: by the input's dtype, or by torch's setting for float32."""
    if dtype in (torch.float16, torch.bfloat16):
        return "half"
    return "tf32" if tf32_allowed() else "float32"


def cheapest(tensors: Tensors, geo: Geometry) -> Way:
    """The rule for one call: the CUDA kernels, or what is cheaper by a margin."""
    units = tensors.weight.numel() * geo.groups / max(1, geo.in_channels * geo.out_channels)
    if not is_affordable(geo, tensors.unit_ptr is not None):
        return "cuda"
    capability = LAUNCHERS[tensors.input.device.type].gpu(tensors.input.device).capability
    found = _cheapest(geo, units, capability, allowed_precision(tensors.input.dtype))
    # A sum over an image, which its spectrum begins with, is soon too large for float16.
    return "cuda" if found == "spectral" and tensors.input.dtype == torch.float16 else found


@functools.lru_cache(maxsize=4096)
def is_affordable(geo: Geometry, ragged: bool) -> bool:
    """True where filters take memory and time that is worth a thought, or a measurement.

    Filters of ragged units are made all at once, because where a channel's units begin is known on the device only; and
    spectra of images or filters that do not fit into one block or chunk would be made again and again.
    """
    if geo.dilation != (1, 1) or 0 in (geo.batch, *geo.in_size):
        return False
    window = expected_window(geo, geo.limit)
    tiling = Tiling.of(window, geo)
    pairs = geo.in_channels * geo.out_channels // geo.groups
    taps = window.size[0] * window.size[1]
    filters = pairs * max(4 * taps, tiling.spectrum_bytes(torch.float32))
    blocks = len(list(itertools.islice(tiling.blocks(geo, torch.float32), 2)))
    return taps <= MOST_TAPS and (filters <= CHUNK_BYTES or (blocks == 1 and not ragged))


@functools.lru_cache(maxsize=4096)
def _cheapest(geo: Geometry, units: float, capability: int, precision: Precision) -> Way:
    if geo.dilation != (1, 1) or 0 in (geo.batch, *geo.in_size):
        return "cuda"
    found = costs(geo, units, capability, precision)
    other: Way = "dense" if found["dense"] <= found["spectral"] else "spectral"
    return other if found[other] < MARGIN * found["cuda"] else "cuda"


def costs(geo: Geometry, units: float, capability: int, precision: Precision) -> dict[Way, float]:
    """Float32 multiply-adds of a forward of an undilated layer by each way, or the time of as many.

    Args:
        geo: sizes of the call.
        units: units of a pair, on average.
        capability: compute capability times ten.
        precision: the lowest that the caller allowed.
    """
    rates = RATES[max((known for known in RATES if known <= capability), default=min(RATES))]
    pairs = geo.in_channels * geo.out_channels // geo.groups
    pixels = geo.batch * geo.out_size[0] * geo.out_size[1]
    rate, utilisation = {
        "float32": (1.0, FLOAT32_UTILISATION),
        "tf32": (rates.tf32, TENSOR_UTILISATION if rates.tf32 < 1 else FLOAT32_UTILISATION),
        "half": (rates.half, TENSOR_UTILISATION),
    }[precision]
    window = expected_window(geo, geo.limit)
    taps = window.size[0] * window.size[1]
    # A kernel is written and read once, four bytes a tap, whatever the number of pixels.
    dense = pairs * (pixels * taps * rate / utilisation + 8 * taps / rates.bytes_per_operation)
    tiling = Tiling.of(window, geo)
    windows = geo.batch * tiling.count[0] * tiling.count[1]
    # A complex product is four real ones; a filter's spectrum takes one for each row of its window, in float32.
    products = 4 * pairs * (windows * rate / utilisation + window.size[0] / FLOAT32_UTILISATION)
    moved = SPECTRUM_PASSES * windows * (geo.in_channels + geo.out_channels) + FILTER_PASSES * pairs
    spectral = tiling.frequencies * (products + 8 * moved / rates.bytes_per_operation)
    return {"cuda": pairs * pixels * (rates.fixed + rates.per_unit * units), "dense": dense, "spectral": spectral}
