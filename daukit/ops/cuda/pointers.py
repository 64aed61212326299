"""The pointers of ragged units in the order of the adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.ops.cuda.call import Call, Prepared
from daukit.ops.cuda.launcher import Launch

THREADS = 1024
"""Threads of the one block that goes through all pointers."""


def transposed_pointers(call: Call) -> Tensor | None:
    """First unit of every pair in the order (input channel, output channel of its group), or None when dense.

    The kernel asserts that the pointers rise from 0 to the number of units.
    """
    unit_ptr = call.units.unit_ptr
    if unit_ptr is None:
        return None
    transposed = torch.empty_like(unit_ptr)
    call.queue("transpose pointers", lambda: _launch(call), unit_ptr, transposed)
    return transposed


def _launch(call: Call) -> Prepared:
    # Two words a thread.
    return Launch.of("pointers.cu", "dau_transpose_pointers", (1,), (THREADS,), {}, 8 * THREADS), call.sizes()
