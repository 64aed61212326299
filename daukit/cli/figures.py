"""Save figures whole or not at all, with the same bytes for the same figure; refuse wrong names of outputs early."""

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
"""Formats of figures, each with the metadata to leave out, which would make its bytes differ from run to run."""


def check_format(path: Path) -> None:
    """Raise ``OutputError`` unless the file's suffix names a figure format."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a figure is {', '.join(FORMATS)}; give the output one of these suffixes")


def check_outputs(
    figure: Path | None, numbers: Path | None, *, overwrite: bool, dry_run: bool, sources: Iterable[str | Path]
) -> None:
    """Refuse outputs that cannot be written, before any work; in a dry run, only check their names.

    Args:
        figure: file of the figure, if there is one.
        numbers: file of the numbers behind the figure, if there is one.
        overwrite: whether the files may exist.
        dry_run: whether nothing will be written.
        sources: files that are read, which may not be outputs.
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
