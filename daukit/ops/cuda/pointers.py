"""The pointers of ragged units on the device: wrong ones fail there, before a kernel reads by them."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from daukit.ops.cuda.call import Call, Prepared
from daukit.ops.cuda.launcher import Launch

THREADS = 1024
"""Threads of the one block that looks at all pointers."""


def check_pointers(call: Call) -> None:
    """Assert on the device that the pointers of a ragged layer rise from 0 to the number of its units.

    A failed assertion stops everything that was queued behind it, and surfaces at the next operation that waits.
    """
    unit_ptr = call.units.unit_ptr
    if unit_ptr is None:
        return
    right = unit_ptr.new_empty(1)
    call.queue("check pointers", lambda: _launch(call, "dau_check_pointers", 4), unit_ptr, right)
    _assert(call, right)


def transposed_pointers(call: Call) -> Tensor | None:
    """First unit of every pair in the order (input channel, output channel of its group), or None when dense.

    The pointers are checked as by ``check_pointers``.
    """
    unit_ptr = call.units.unit_ptr
    if unit_ptr is None:
        return None
    transposed, right = torch.empty_like(unit_ptr), unit_ptr.new_empty(1)
    launch = functools.partial(_launch, call, "dau_transpose_pointers", 8)
    call.queue("transpose pointers", launch, unit_ptr, transposed, right)
    _assert(call, right)
    return transposed


def _launch(call: Call, kernel: str, bytes_a_thread: int) -> Prepared:
    return Launch.of("pointers.cu", kernel, (1,), (THREADS,), {}, bytes_a_thread * THREADS), call.sizes()


def _assert(call: Call, right: Tensor) -> None:
    torch._assert_async(right, f"unit_ptr must rise from 0 to the number of units ({call.units.count})")
