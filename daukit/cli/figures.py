"""Figures and the numbers behind them: refused early; saved whole or not at all, the same bytes for the same figure."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.errors import OutputError
from daukit.files import check_distinct, check_output, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""What a figure may be saved as, with the metadata that would make its bytes differ from run to run."""


def check_format(path: Path) -> None:
    """Raise ``OutputError`` unless the file's suffix names a figure format."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a figure is {', '.join(FORMATS)}; give the output one of these suffixes")


def check_outputs(
    figure: Path | None, numbers: Path | None, *, overwrite: bool, dry_run: bool, sources: Iterable[str | Path]
) -> None:
    """Refuse before any work what could not be written after it, or would not be under that name in a dry run.

    Args:
        figure: where to draw to, if anywhere.
        numbers: where to write what is behind the figure, if anywhere.
        overwrite: whether they may exist.
        dry_run: whether none of them is written.
        sources: what is read, which neither may be.
    """
    check_distinct(figure, numbers)
    if figure is not None:
        check_format(figure)
    for path in (figure, numbers):
        if path is not None and not dry_run:
            check_output(path, overwrite=overwrite, sources=sources)


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
