"""The check that the CUDA kernels can run here, and the one warning where they cannot."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from daukit.errors import CudaUnavailableError
from daukit.ops.contract import GivenUp, Tensors
from daukit.ops.cuda import compiler, sources
from daukit.ops.cuda.call import BlurTile
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.geometry import Geometry


class Ranked(Protocol):
    """The kernels with an instance of some rank: 0 is that of the rule."""

    rank: int


Kernels = TypeVar("Kernels", bound=Ranked)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_failures: dict[torch.device, str] = {}
"""The reason why this process gave the kernels up on a device, if it did."""


def state() -> str:
    """``"available"`` or ``"unavailable: why"``; available where one of several GPUs can run the kernels."""
    if (why := _missing_piece()) is not None:
        return f"unavailable: {why}"
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    others = [torch.device(kind) for kind in LAUNCHERS if kind != "cuda"]  # of tests
    reasons = [why_not(device) for device in (*gpus, *others)]
    return "available" if None in reasons else f"unavailable: {reasons[0]}"


def supports(device: torch.device, dtype: torch.dtype, geo: Geometry) -> bool:
    """True if the kernels take a call with parameters of ``dtype``. Warns once where a missing piece forbids it."""
    if device.type not in LAUNCHERS or dtype != torch.float32 or BlurTile.of(geo.radius) is None:
        return False
    if (why := why_not(device)) is not None:
        give_up(device, CudaUnavailableError(why))
    return why is None


def why_not(device: torch.device) -> str | None:
    """The reason why one GPU does not run the kernels, and what to install; None where it does."""
    if device.type != "cuda":
        return _failures.get(device)
    device = _with_index(device)
    return _failures.get(device) or _missing_piece() or _unsupported(device.index)


def give_up(device: torch.device, error: CudaUnavailableError) -> None:
    """Use the dense path on this device from now on, and say so once."""
    device = _with_index(device)
    if device not in _failures:
        _failures[device] = str(error)
        warnings.warn(
            f"dau_conv2d runs on its dense path, without daukit's CUDA kernels, on {device}: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


def giving_up(
    run: Callable[Concatenate[Kernels, Arguments], Result],
) -> Callable[Concatenate[Kernels, Arguments], Result]:
    """Decorate a pass of the kernels: if they turn out not to run here, give them up and raise ``GivenUp``.

    An instance that only measurement may choose is no reason to give the others up.
    """

    @functools.wraps(run)
    def guarded(kernels: Kernels, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return run(kernels, *arguments, **options)
        except CudaUnavailableError as why:
            if kernels.rank == 0:
                give_up(next(one.mu.device for one in arguments if isinstance(one, Tensors)), why)
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
        compiler.load_nvrtc()
        sources.folder()
    except CudaUnavailableError as error:
        return str(error)
    return None


@functools.cache
def _unsupported(index: int) -> str | None:
    """The reason why the compiler has nothing for one GPU; None where it has."""
    major, minor = torch.cuda.get_device_capability(index)
    try:
        compiler.target(10 * major + minor, compiler.known_architectures(compiler.load_nvrtc()))
    except CudaUnavailableError as error:
        return str(error)
    return None


def _with_index(device: torch.device) -> torch.device:
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())
