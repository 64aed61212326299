"""Kernels of cuda/ as shared libraries for the CPU, and their launch."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "cuda"
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
# A barrier in the source stays one in the code: threads that meet are known by where they wait.
FLAGS += ["-fno-thread-jumps", "-fno-tree-dominator-opts"]  # GCC 11's dominators thread jumps, whatever is asked for

# As for the native library: without a compiler there is nothing to test, and CI makes sure that there is one.
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is needed to run CUDA kernels on the CPU")


@functools.cache
def folder() -> Path:
    """Where this process keeps what it builds; it goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="daukit-emulator-")
    folder.keep = made  # type: ignore[attr-defined]
    return Path(made.name)


def compile(arguments: Sequence[str | Path]) -> None:
    """Run g++; its own words are the error.

    Raises:
        RuntimeError: the compiler refused the source.
    """
    done = subprocess.run(["g++", *FLAGS, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


@functools.cache
def runtime(checked: bool) -> list[Path]:
    """Objects of the emulator itself."""
    objects = []
    for name in ("emulator", "checks" if checked else "unchecked"):
        to = folder() / f"{name}-{checked}.o"
        compile(["-O2", "-c", HERE / f"{name}.cpp", "-o", to])
        objects.append(to)
    return objects


def build(name: str, macros: Mapping[str, int], checked: bool = False, sources: Path = SOURCES) -> Path:
    """The shared library of ``<sources>/<name>.cu``, compiled once in a process for each set of macros.

    Raises:
        RuntimeError: the compiler refused it; a failed ``static_assert`` is in the message.
    """
    key = hashlib.sha256(repr((name, sorted(macros.items()), checked, str(sources))).encode()).hexdigest()[:16]
    library = folder() / f"{name}-{key}.so"
    if library.exists():
        return library
    source = sources / f"{name}.cu"
    kernels = re.findall(r"__global__ void(?: __launch_bounds__\([^)]*\))?\s+(\w+)\(", source.read_text())
    wrapper = folder() / f"{name}-{key}.cpp"
    words = ['#include "emulator.h"', f'#include "{source}"', *(f"EMULATOR_KERNEL({kernel})" for kernel in kernels)]
    wrapper.write_text("\n".join(words) + "\n")
    defines = [f"-D{macro}={value}" for macro, value in macros.items()]
    how = ["-O1", "-fsanitize=thread,alignment"] if checked else ["-O1", "-mfma"] if has_fma() else ["-O1"]
    compiled = wrapper.with_suffix(".o")
    compile([*how, *defines, "-I", HERE, "-c", wrapper, "-o", compiled])
    partly = library.with_suffix(f".{os.getpid()}.tmp")
    compile(["-shared", compiled, *runtime(checked), "-o", partly])
    partly.rename(library)
    return library


@functools.cache
def has_fma() -> bool:
    """Whether this processor multiplies and adds in one instruction; without it ``fmaf`` is a slow function call."""
    cpus = Path("/proc/cpuinfo")
    return cpus.exists() and " fma " in cpus.read_text()


def build_all(wanted: Iterable[tuple[str, Mapping[str, int], bool]]) -> None:
    """Build several libraries at once."""
    runtime(False), runtime(True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda w: build(*w), wanted))
