"""The folder of the kernels' source: in ``cuda/`` of a checkout, or inside the installed package."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

from daukit.errors import CudaUnavailableError

MARK = "forward.cu"
"""A file that tells the kernels' folder from any other folder of that name, such as that of the ``cuda`` packages."""

SUFFIXES = (".cu", ".cuh")


@functools.cache
def folder() -> Path:
    """The folder of the kernels' source.

    Raises:
        CudaUnavailableError: the package was installed without it.
    """
    package = [Path(path) for path in sys.modules["daukit"].__path__]
    # A checkout comes first: an editable install has a second, older copy in site-packages.
    for path in [*(one.parent / "cuda" for one in package), *(one / "cuda_kernels" for one in package)]:
        if (path / MARK).is_file():
            return path
    raise CudaUnavailableError(
        f"the source of the CUDA kernels ({MARK}) was not installed; install daukit again (pip install .)"
    )


def digest(path: Path) -> str:
    """A digest of every source file in ``path``, by name and content."""
    state = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.suffix in SUFFIXES):
        content = file.read_bytes()
        state.update(f"{file.name} {len(content)}\n".encode())
        state.update(content)
    return state.hexdigest()
