"""The launcher whose kernels run on the CPU: the rest of the CUDA backend cannot tell it from a GPU."""

from __future__ import annotations

import functools

from emulator.library import Library

from daukit.errors import CudaError
from daukit.ops.cuda.chooser import Gpu

CARD = Gpu(capability=90, multiprocessors=4, block_bytes=232448, multiprocessor_bytes=233472)
"""A small card, so that small images already fill it."""


class EmulatedLauncher:
    """Keeps what was launched, in order."""

    def __init__(self, card=CARD):
        self.card, self.launched = card, []

    def gpu(self, device):
        assert device.type == "cpu"
        return self.card

    def identity(self, device):
        return "emulated card"

    def launch(self, device, launch, *arguments):
        assert launch.shared_bytes <= self.card.block_bytes
        assert launch.grid[0] < 2**31 and max(launch.grid[1:]) < 2**16
        self.launched.append(launch)
        try:
            library(launch.source).launch(
                launch.kernel, launch.grid, launch.block, launch.shared_bytes, list(arguments), order=0
            )
        except RuntimeError as error:
            raise CudaError(str(error)) from None


@functools.cache
def library(source):
    return Library(source.file.removesuffix(".cu"), dict(source.macros))
