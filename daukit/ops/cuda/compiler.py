"""The kernels compiled by NVRTC, on the machine that runs them, when they are first needed; kept on disk.

No nvcc is needed: ``cuda-bindings`` and NVRTC come with torch's own CUDA packages, or with daukit's extra ``cuda``.
A compilation takes a fraction of a second and happens once: its result lies in the user's cache folder under a digest
of all sources, the options and the compiler's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daukit.errors import CudaUnavailableError
from daukit.ops.cuda import cache, sources

OLDEST = 75
"""Compute capability (7.5, Turing) of the oldest GPUs that the kernels are written for."""

ALONE = (72, 87, 101, 110)
"""Architectures of systems on a chip, whose binaries other GPUs of their generation need not run."""

_INSTALL = "pip install cuda-bindings nvidia-cuda-nvrtc (daukit's extra 'cuda'; 'cuda12' for drivers of CUDA 12)"


class Target(NamedTuple):
    """What NVRTC compiles for.

    Attributes:
        architecture: compute capability times ten.
        ptx: True for code that the driver itself compiles for a newer GPU; False for the GPU's own.
    """

    architecture: int
    ptx: bool = False

    @property
    def option(self) -> str:
        """NVRTC's option."""
        return f"--gpu-architecture={'compute' if self.ptx else 'sm'}_{self.architecture}"


def compile_kernel(
    file: str, macros: Mapping[str, int | str], capability: int, options: tuple[str, ...] = (), *, ptx: bool = False
) -> bytes:
    """The binary of one source file for one kind of GPU, from the cache or compiled now.

    Args:
        file: name in the folder of the kernels, such as ``forward.cu``.
        macros: preprocessor definitions.
        capability: compute capability of the GPU times ten: 90 for 9.0.
        options: further options of NVRTC.
        ptx: code that the driver compiles, also where the GPU's own could be had.

    Raises:
        CudaUnavailableError: NVRTC is missing or does not know the GPU, or the source does not compile.
    """
    nvrtc = load_nvrtc()
    version = _checked(nvrtc, nvrtc.nvrtcVersion())
    folder = sources.folder()
    wanted = target(capability, known_architectures(nvrtc))
    wanted = wanted._replace(ptx=wanted.ptx or ptx)
    arguments = [
        wanted.option,
        "--std=c++17",
        *(f"-D{name}={value}" for name, value in sorted(macros.items())),
        *options,
    ]
    key = hashlib.sha256("\0".join([sources.digest(folder), file, str(version), *arguments]).encode()).hexdigest()
    name = f"{Path(file).stem}-{key[:32]}"
    if (found := cache.read(name)) is not None:
        return found
    # The folder is no part of the key: the same sources give the same code wherever they lie, but for the name of their
    # file in what a failed assertion prints.
    binary = _compile(nvrtc, folder / file, [*arguments, f"--include-path={folder}"], wanted.ptx)
    cache.keep(name, binary)
    return binary


def load_nvrtc() -> Any:
    """The module ``cuda.bindings.nvrtc``, with its library loaded.

    Raises:
        CudaUnavailableError: one of the two is not installed.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        raise CudaUnavailableError(f"cuda-bindings is not installed; {_INSTALL}") from None
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise CudaUnavailableError(f"CUDA's run-time compiler NVRTC cannot be loaded ({reason}); {_INSTALL}") from None
    return nvrtc


def known_architectures(nvrtc: Any) -> list[int]:
    """Architectures that NVRTC compiles for, as compute capabilities times ten."""
    return list(_checked(nvrtc, nvrtc.nvrtcGetSupportedArchs()))


def target(capability: int, known: list[int]) -> Target:
    """The newest architecture that NVRTC knows and the GPU runs: of the GPU's own generation, not newer than it.

    For a generation that the compiler does not know, such as one newer than it, the driver compiles PTX for an older.

    Raises:
        CudaUnavailableError: the GPU is too old.
    """
    generation, usable = capability // 10, [one for one in known if OLDEST <= one <= capability]
    own = [one for one in usable if one // 10 == generation and (one == capability or one not in ALONE)]
    if own:
        return Target(max(own))
    if usable:
        return Target(max(usable, key=lambda one: (one not in ALONE, one)), ptx=True)
    raise CudaUnavailableError(
        f"this GPU has compute capability {generation}.{capability % 10}, for which the installed NVRTC cannot "
        f"compile (it knows {', '.join(f'{one // 10}.{one % 10}' for one in known)}; the kernels need "
        f"{OLDEST // 10}.{OLDEST % 10} or newer); install an NVRTC that knows it"
    )


def _compile(nvrtc: Any, path: Path, arguments: list[str], ptx: bool) -> bytes:
    program = _checked(nvrtc, nvrtc.nvrtcCreateProgram(path.read_bytes(), path.name.encode(), 0, [], []))
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), [one.encode() for one in arguments])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            text = bytes(log).rstrip(b"\0").decode(errors="replace").strip() or status.name
            raise CudaUnavailableError(f"{path.name} does not compile with {' '.join(arguments)}:\n{text}")
        size, get = (
            (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX) if ptx else (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        )
        binary = bytearray(_checked(nvrtc, size(program)))
        _checked(nvrtc, get(program, binary))
        return bytes(binary)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    """The values that a call of cuda-bindings returned after its status, which must be success."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CudaUnavailableError(f"NVRTC failed: {status.name}; install it again: {_INSTALL}")
    return values[0] if len(values) == 1 else tuple(values)
