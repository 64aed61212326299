"""Bugs planted into a copy of the kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

from emulator.build import SOURCES


def planted(to: Path, file: str, old: str, new: str) -> Path:
    """A copy of cuda/ in the folder ``to``, in whose ``file`` what stood once as ``old`` is ``new``."""
    folder = to / "cuda"
    shutil.copytree(SOURCES, folder)
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder
