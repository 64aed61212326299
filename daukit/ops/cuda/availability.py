"""The check that the CUDA kernels can run here, and the one warning where they cannot."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from daukit.errors import CudaUnavailableError
from daukit.ops.contract import GivenUp
from daukit.ops.cuda import compiler, sources
from daukit.ops.cuda.call import blur_tile
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.geometry import Geometry

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_failures: list[str] = []
"""The reason why this process gave the kernels up, if it did."""


def state() -> str:
    """``"available"`` or ``"unavailable: why"``."""
    why = _failures[0] if _failures else _missing_piece()
    return "available" if why is None else f"unavailable: {why}"


def supports(device: torch.device, dtype: torch.dtype, geo: Geometry) -> bool:
    """True if the kernels take a call with parameters of ``dtype``. Warns once where a missing piece forbids it."""
    if device.type not in LAUNCHERS or dtype != torch.float32 or blur_tile(geo.radius) is None:
        return False
    if device.type != "cuda":
        return True  # not a GPU: a test's launcher
    if not _failures and (why := _missing_piece()) is not None:
        give_up(CudaUnavailableError(why))
    return not _failures


def give_up(error: CudaUnavailableError) -> None:
    """Use the dense path from now on, and say so once."""
    if not _failures:
        _failures.append(str(error))
        warnings.warn(
            f"dau_conv2d runs on its dense path, without daukit's CUDA kernels: {error}", RuntimeWarning, stacklevel=3
        )


def giving_up(run: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a pass of the kernels: if they turn out not to run here, give them up and raise ``GivenUp``."""

    @functools.wraps(run)
    def guarded(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return run(*arguments, **options)
        except CudaUnavailableError as why:
            give_up(why)
            raise GivenUp from why

    return guarded


@functools.cache
def _missing_piece() -> str | None:
    """The missing piece, and what to install; None when nothing is missing."""
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    try:
        nvrtc = compiler.load_nvrtc()
        sources.folder()
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            compiler.target(10 * major + minor, compiler.known_architectures(nvrtc))
    except CudaUnavailableError as error:
        return str(error)
    return None
