"""Launches on the emulator, with arguments as the CUDA driver takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emulator.build import SOURCES, build

Argument = torch.Tensor | ctypes.Structure | ctypes.c_int | ctypes.c_longlong | int | None

KINDS = ("shared_load", "shared_store", "global_load", "global_store", "copy_load")


class _Counts(ctypes.Structure):
    _fields_ = [  # noqa: RUF012 -- ctypes wants a list
        ("races", ctypes.c_longlong),
        ("out_of_bounds", ctypes.c_longlong),
        ("uninitialised", ctypes.c_longlong),
        ("unwritten", ctypes.c_longlong),
        ("requests", ctypes.c_longlong * len(KINDS)),
        ("costs", ctypes.c_longlong * len(KINDS)),
    ]


@dataclass(frozen=True)
class Report:
    """What a checked library has seen.

    Attributes:
        races, out_of_bounds, uninitialised: accesses.
        unwritten: 2-byte grains that should have been written and were not.
        cost: of each kind of access, wavefronts (shared memory) or 32-byte sectors (global) a request of a warp.
        findings: the first ones in words.
    """

    races: int
    out_of_bounds: int
    uninitialised: int
    unwritten: int
    cost: dict[str, float]
    findings: str

    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.races or self.out_of_bounds or self.uninitialised or self.unwritten)


class Library:
    """A built kernel source."""

    def __init__(self, name: str, macros: Mapping[str, int], checked: bool = False, sources: Path = SOURCES):
        self._library = ctypes.CDLL(str(build(name, macros, checked, sources)))
        self._library.emulator_message.restype = ctypes.c_char_p

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        shared_bytes: int,
        arguments: Sequence[Argument],
        order: int = 0,
        skipped: int = 0,
    ) -> None:
        """Run a kernel. Threads run in ascending (``order`` 0), descending (1) or random order (the seed).

        Of every row of the grid the blocks before the one of number ``skipped`` are left out.

        Raises:
            RuntimeError: the launch is impossible, a barrier or a shuffle is divergent, a shuffle reads what no lane
                gives, an assertion fails, or (checked) an access is not aligned; the message names the kernel.
        """
        values = [_value(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
        self._library.emulator_skip(ctypes.c_uint(skipped))
        if self._library.emulator_launch(kernel.encode(), *sizes, ctypes.c_size_t(shared_bytes), pointers, order):
            raise RuntimeError(f"{kernel}: {self._library.emulator_message().decode()}")

    def watch(self, tensors: Mapping[str, torch.Tensor], written: Sequence[str] = ()) -> None:
        """From now on nothing but these tensors may be touched, and the launches must fill those ``written``."""
        self._library.emulator_forget()
        for name, tensor in tensors.items():
            size = ctypes.c_size_t(tensor.numel() * tensor.element_size())
            self._library.emulator_register(
                ctypes.c_void_p(tensor.data_ptr()), size, name.encode(), int(name not in written)
            )

    def report(self) -> Report:
        """What was seen since ``watch``."""
        counts = _Counts()
        self._library.emulator_report.restype = ctypes.c_char_p
        findings = self._library.emulator_report(ctypes.byref(counts)).decode()
        cost = {k: c / r for k, c, r in zip(KINDS, counts.costs, counts.requests, strict=True) if r}
        return Report(counts.races, counts.out_of_bounds, counts.uninitialised, counts.unwritten, cost, findings)


def _value(argument: Argument) -> Any:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else argument
