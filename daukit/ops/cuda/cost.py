"""The choice between the CUDA kernels, convolutions and transforms: counted operations and data-sheet rates.

Costs are in float32 multiply-adds of the card. No rate was measured; they stand in one table, which times of ``daukit
bench --device cuda`` can replace. Only shapes, dtypes and settings count: a call takes the same way in eager mode and
while a graph is captured, and nothing waits for the GPU.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch

from daukit.ops.contract import Needs, Tensors
from daukit.ops.cuda.chooser import FORWARD, HALOS
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.cuda.passes import FORMS
from daukit.ops.filters import CHUNK_BYTES, expected_window
from daukit.ops.geometry import Geometry
from daukit.ops.precision import tf32_allowed
from daukit.ops.tiling import Tiling

Precision = Literal["float32", "tf32", "half"]
Way = Literal["cuda", "cuda, second tile", "cuda, third tile", "dense", "dense, channels last", "spectral"]
"""The kernels, with the tile that the chooser's model predicts to be fastest or with another one; and filters."""


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

MOST_TAPS = (2 * HALOS[-1] + 1) ** 2
"""Taps of a window, that of the kernels' farthest halo, beyond which only the kernels are thought of."""

TIMED = 8
"""A way that the rule counts as so many times the cheapest one is not timed."""

KERNELS: tuple[Way, ...] = ("cuda", "cuda, second tile", "cuda, third tile")
"""The ways of the kernels, by the rank of their tile in the chooser's model."""

MARGIN = 0.8
"""Another way must be this much faster than the kernels: its costs are the less certain ones."""


def allowed_precision(dtype: torch.dtype) -> Precision:
    """The lowest precision that the caller allowed: by the input's dtype, or by torch's setting for float32."""
    if dtype in (torch.float16, torch.bfloat16):
        return "half"
    return "tf32" if tf32_allowed() else "float32"


class Effort(NamedTuple):
    """How much more a pass is than a forward, in products with filters and in multiply-adds of the kernels' loop."""

    filters: float = 1
    kernels: float = 1


def backward_effort(needs: Needs, mu_gradient: str) -> Effort:
    """That of a backward: a product for the images and one for each map that the units' sums need."""
    form = FORMS[mu_gradient if needs.mu else None]
    if not (needs.weight or needs.mu or needs.sigma):
        return Effort()
    return Effort(1 + form.maps, form.loop.fma / FORWARD.fma)


def cheapest(found: Mapping[Way, float]) -> Way:
    """The rule for one pass of such costs: the CUDA kernels, or what is cheaper by a margin."""
    other = min((way for way in found if way != "cuda"), key=lambda way: found[way], default=None)
    return other if other is not None and found[other] < MARGIN * found["cuda"] else "cuda"


def worth_timing(found: Mapping[Way, float]) -> list[Way]:
    """The ways that are not counted far out by such costs: a measurement must not take hours."""
    least = min(found.values())
    return [*KERNELS, *(way for way in found if way != "cuda" and found[way] <= TIMED * least)]


def costs_of(tensors: Tensors, geo: Geometry, effort: Effort) -> dict[Way, float]:
    """Costs of a pass by the ways that take it: the kernels, and where they are affordable the others."""
    units = tensors.weight.numel() * geo.groups / max(1, geo.in_channels * geo.out_channels)
    if not is_affordable(geo, tensors.unit_ptr is not None):
        return {"cuda": 1.0}
    dtype, capability = tensors.input.dtype, LAUNCHERS[tensors.input.device.type].gpu(tensors.input.device).capability
    found = costs(geo, units, capability, allowed_precision(dtype))
    # A sum over an image, with which its spectrum begins, is soon too large for float16.
    return {
        way: cost * (effort.kernels if way == "cuda" else effort.filters)
        for way, cost in found.items()
        if not (way == "spectral" and dtype == torch.float16)
    }


@functools.lru_cache(maxsize=4096)
def is_affordable(geo: Geometry, ragged: bool) -> bool:
    """True where filters take neither too much memory nor too much time to be thought of.

    Filters of ragged units are made all at once, because where a channel's units begin is known on the device only; and
    spectra of images or filters that do not fit into one block or chunk would be made again and again.
    """
    if geo.dilation != (1, 1) or 0 in (geo.batch, *geo.in_size):
        return False
    window = expected_window(geo, geo.limit)
    tiling = Tiling.of(window, geo)
    taps = window.size[0] * window.size[1]
    filters = geo.in_channels * geo.out_channels // geo.groups * max(4 * taps, tiling.spectrum_bytes(torch.float32))
    is_one_block = len(list(itertools.islice(tiling.blocks(geo, torch.float32), 2))) == 1
    return taps <= MOST_TAPS and (filters <= CHUNK_BYTES or (is_one_block and not ragged))


@functools.lru_cache(maxsize=4096)
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
    kernels = pairs * pixels * (rates.fixed + rates.per_unit * units)
    return {"cuda": kernels, "dense": dense, "dense, channels last": dense, "spectral": spectral}
