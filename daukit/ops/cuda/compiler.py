"""The kernels compiled by NVRTC, on the machine that runs them, when they are first needed; kept on disk.

No nvcc is needed: ``cuda-bindings`` and NVRTC come with torch's own CUDA packages, or with daukit's extra ``cuda``.
A compilation takes a fraction of a second and happens once: its result lies in the user's cache folder under a digest
of all sources, the options and the compiler's version.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daukit.errors import CudaUnavailableError, OutputError
from daukit.files import write_atomic
from daukit.ops.cuda import sources

CACHE_VARIABLE = "DAUKIT_CACHE"
"""Environment variable that names another cache folder."""

OLDEST = 75
"""Compute capability (7.5, Turing) of the oldest GPUs that the kernels are written for."""

_INSTALL = "pip install cuda-bindings nvidia-cuda-nvrtc (daukit's extra 'cuda'; 'cuda12' for drivers of CUDA 12)"
_ELF = b"\x7fELF"


def cache_folder() -> Path:
    """The folder of compiled kernels: ``DAUKIT_CACHE``, or ``daukit`` in the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "daukit"


def compile_kernel(file: str, macros: Mapping[str, int | str], capability: int, options: tuple[str, ...] = ()) -> bytes:
    """The binary of one source file for one kind of GPU, from the cache or compiled now.

    Args:
        file: name in the folder of the kernels, such as ``forward.cu``.
        macros: preprocessor definitions.
        capability: compute capability of the GPU times ten: 90 for 9.0.
        options: further options of NVRTC.

    Raises:
        CudaUnavailableError: NVRTC is missing or does not know the GPU, or the source does not compile.
    """
    nvrtc = load_nvrtc()
    version = _checked(nvrtc, nvrtc.nvrtcVersion())
    folder = sources.folder()
    arguments = [
        f"--gpu-architecture=sm_{target(capability, known_architectures(nvrtc))}",
        "--std=c++17",
        *(f"-D{name}={value}" for name, value in sorted(macros.items())),
        *options,
    ]
    key = hashlib.sha256("\0".join([sources.digest(folder), file, str(version), *arguments]).encode()).hexdigest()
    kept = cache_folder() / f"{Path(file).stem}-{key[:32]}.cubin"
    if (found := _read(kept)) is not None:
        return found
    # The folder itself is no part of the key: the same sources give the same binary wherever they lie.
    binary = _compile(nvrtc, folder / file, [*arguments, f"--include-path={folder}"])
    _keep(kept, binary)
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


def target(capability: int, known: list[int]) -> int:
    """The newest architecture that NVRTC knows and the GPU runs: of the GPU's own generation, not newer than it.

    Raises:
        CudaUnavailableError: there is none.
    """
    generation = capability // 10
    usable = [one for one in known if one // 10 == generation and OLDEST <= one <= capability]
    if not usable:
        raise CudaUnavailableError(
            f"this GPU has compute capability {generation}.{capability % 10}, for which the installed NVRTC cannot "
            f"compile (it knows {', '.join(f'{one // 10}.{one % 10}' for one in known)}; the kernels need "
            f"{OLDEST // 10}.{OLDEST % 10} or newer); install an NVRTC that knows it"
        )
    return max(usable)


def _compile(nvrtc: Any, path: Path, arguments: list[str]) -> bytes:
    program = _checked(nvrtc, nvrtc.nvrtcCreateProgram(path.read_bytes(), path.name.encode(), 0, [], []))
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), [one.encode() for one in arguments])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            text = bytes(log).rstrip(b"\0").decode(errors="replace").strip() or status.name
            raise CudaUnavailableError(f"{path.name} does not compile with {' '.join(arguments)}:\n{text}")
        binary = bytearray(_checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, binary))
        return bytes(binary)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    """The values that a call of cuda-bindings returned after its status, which must be success."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CudaUnavailableError(f"NVRTC failed: {status.name}; install it again: {_INSTALL}")
    return values[0] if len(values) == 1 else tuple(values)


def _read(kept: Path) -> bytes | None:
    try:
        content = kept.read_bytes()
    except OSError:
        return None
    return content if content.startswith(_ELF) else None


def _keep(kept: Path, binary: bytes) -> None:
    """Keep a binary for the next process. Several may do so at once: each writes a file of its own and renames it."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, binary, overwrite=True)
    except (OSError, OutputError):
        pass  # a cache that cannot be written costs time only
