"""The interface that launches kernels; the CUDA driver stands behind it.

The tests put an emulator behind it, which runs the same kernels on tensors of the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from daukit.ops.cuda.chooser import Gpu

Value = ctypes.Structure | ctypes.c_void_p | ctypes.c_int | ctypes.c_longlong
"""One argument of a kernel as the driver takes it: its sizes, a device pointer or a number."""

Argument = Value | Tensor | None
"""One argument of a kernel. A tensor, contiguous and on the kernel's device, stands for its pointer, None for null."""


@dataclass(frozen=True)
class Source:
    """One compiled form of a source file.

    Attributes:
        file: name in the kernels' folder, such as ``forward.cu``.
        macros: (name, value) of its preprocessor definitions.
    """

    file: str
    macros: tuple[tuple[str, int], ...] = ()


class Launch(NamedTuple):
    """A kernel and the blocks that run it."""

    source: Source
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int

    @classmethod
    def of(
        cls,
        file: str,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        macros: Mapping[str, int],
        shared_bytes: int = 0,
    ) -> Launch:
        """A launch of ``kernel`` in ``file``, whose grid and block may leave out trailing axes of 1."""
        source = Source(file, tuple(sorted(macros.items())))
        return cls(source, kernel, _axes(grid), _axes(block), shared_bytes)


class Launcher(Protocol):
    """Runs kernels on the devices of one type."""

    def gpu(self, device: torch.device) -> Gpu:
        """The properties of the device that the choice of a launch depends on."""

    def identity(self, device: torch.device) -> str:
        """The card and its driver: what times depend on."""

    def seconds(self, device: torch.device, run: Callable[[], object]) -> float:
        """Time that the device takes for what ``run`` queues, after it has run once. Waits for the device."""

    def launch(self, device: torch.device, launch: Launch, *arguments: Argument) -> None:
        """Queue a kernel on the device's current stream.

        Raises:
            CudaError: it cannot be compiled or launched; the message names the kernel.
        """


LAUNCHERS: dict[str, Launcher] = {}
"""The launcher for each type of device that has one."""


def value(argument: Argument) -> Value:
    """An argument as the driver takes it."""
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return argument


def packed(values: Sequence[Value]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of the arguments, as a launch wants them; the values must outlive the result."""
    return (ctypes.c_void_p * len(values))(*(ctypes.addressof(one) for one in values))


def _axes(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
