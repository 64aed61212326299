"""Launches of the kernels for far units: those whose cell no window holds. Where there are none they return at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from daukit.ops.cuda.call import Call, Prepared
from daukit.ops.cuda.images import THREADS
from daukit.ops.cuda.launcher import Launch

FAR_BLOCKS = 4
"""Blocks for each multiprocessor: where nothing is far, the time that they take is that of their launch."""

FAR_BYTES = 128

UnitGradients = tuple[Tensor, Tensor | None]
"""Gradients of weight and, where it is asked for, of mu, as flat as ``Units``."""


def far_forward(call: Call, halo: int, far: Tensor, blurred: Tensor, output: Tensor) -> None:
    """Add to the output what units beyond ``halo`` read; ``far`` (1,) is their number, which only the GPU knows."""
    geo, units = call.geo, call.units
    most = geo.batch * geo.out_channels * -(-math.prod(geo.out_size) // THREADS)
    call.queue(
        ("far forward", halo), lambda: _launch("dau_far_forward", most, call, halo, {}), far, blurred,
        units.weight, units.mu, units.unit_ptr, output,
    )  # fmt: skip


def far_image(
    call: Call, halo: int, form: Mapping[str, int], far: Tensor, errors: Tensor, grad_blurred: Tensor
) -> None:
    """Add what far units give to the gradient of the blurred images; ``form`` are the backward's definitions."""
    units = call.units
    most = math.prod(grad_blurred.shape[:2]) * -(-math.prod(call.phase_size) // THREADS)
    call.queue(
        ("far image", halo, form["DAU_EXACT"], form["DAU_MU"]),
        lambda: _launch("dau_far_backward", most, call, halo, form),
        far, errors, units.weight, units.mu, units.unit_ptr, grad_blurred,
    )  # fmt: skip


def far_gradients(
    call: Call,
    halo: int,
    form: Mapping[str, int],
    far: Tensor,
    images: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    grads: UnitGradients,
) -> None:
    """Write the gradients of far units; ``images`` are the errors and the maps."""
    units = call.units
    call.queue(
        ("far gradients", halo, form["DAU_EXACT"], form["DAU_MU"]),
        lambda: _launch("dau_far_gradients", units.count, call, halo, form, FAR_BYTES),
        far, *images, units.weight, units.mu, units.unit_ptr, *grads,
    )  # fmt: skip


def _launch(kernel: str, most: int, call: Call, halo: int, form: Mapping[str, int], shared_bytes: int = 0) -> Prepared:
    """A launch of as many blocks as there are pieces of work, but of no more than a few a multiprocessor."""
    macros, grid = {"DAU_STORAGE": call.storage, **form}, (min(most, FAR_BLOCKS * call.gpu.multiprocessors),)
    return Launch.of("far.cu", kernel, grid, (THREADS,), macros, shared_bytes), call.sizes(halo)
