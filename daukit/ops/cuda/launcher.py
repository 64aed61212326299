"""How kernels are launched: one interface, behind which the CUDA driver stands.

The tests put an emulator behind it, which runs the same kernels on tensors of the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from daukit.ops.cuda.chooser import Gpu

Argument = ctypes.Structure | ctypes.c_void_p | ctypes.c_int | ctypes.c_longlong
"""One argument of a kernel: its sizes, a device pointer or a number."""


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


class Launcher(Protocol):
    """Runs kernels on the devices of one type."""

    def gpu(self, device: torch.device) -> Gpu:
        """What the choice of a launch depends on."""

    def launch(self, launch: Launch, arguments: Sequence[Argument], device: torch.device) -> None:
        """Queue a kernel on the device's current stream.

        Raises:
            CudaError: it cannot be compiled or launched; the message names the kernel.
        """


LAUNCHERS: dict[str, Launcher] = {}
"""The launcher for each type of device that has one."""


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """A tensor as a kernel's argument; None is a null pointer."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def packed(arguments: Sequence[Argument]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of the arguments, which must outlive what is returned: what a launch wants."""
    return (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(one) for one in arguments))
