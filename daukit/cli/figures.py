"""Saving figures: whole or not at all, and the same bytes for the same figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.errors import OutputError
from daukit.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""What a figure may be saved as, with the metadata that would make its bytes differ from run to run."""


def check_format(path: Path) -> None:
    """Raise ``OutputError`` unless the file's suffix names a figure format."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a figure is {', '.join(FORMATS)}; give the output one of these suffixes")


def save_figure(figure: Figure, path: Path, *, overwrite: bool) -> None:
    """Write ``figure`` in the format of ``path``'s suffix."""
    from daukit.plots.style import style

    check_format(path)
    suffix = path.suffix.lower()
    metadata: dict[str, Any] = FORMATS[suffix]
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=metadata, bbox_inches="tight")
    write_atomic(path, buffer.getvalue(), overwrite=overwrite)
