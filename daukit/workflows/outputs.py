"""Write figures and tables: refused before the work, saved whole or not at all, the same bytes for the same figure."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.errors import OutputError
from daukit.files import check_distinct, check_output, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {".png": {"Software": None}, ".jpg": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Suffixes of figures, with the metadata that would make their bytes differ from run to run."""

_OF_JPG = {"quality": 90, "subsampling": 0}
"""Of photographs, about a fifth of a PNG's bytes; colours are not halved, so that thin lines keep theirs."""


def check_format(path: Path) -> None:
    """Raise ``OutputError`` unless the file's suffix names a figure format."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a figure is {', '.join(FORMATS)}; give the output one of these suffixes")


def check_outputs(
    figure: Path | None,
    numbers: Path | None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    sources: Iterable[str | Path | None] = (),
) -> None:
    """Refuse before the work what could not be written after it.

    Args:
        figure: file to draw to, if any.
        numbers: file of the numbers behind the figure, if any.
        overwrite: whether they may exist.
        dry_run: whether neither is written; then only their names are checked.
        sources: files that are read, which neither may be.

    Raises:
        OutputError: a name is another kind of file's, both are the same file, or one of them cannot be written.
    """
    check_distinct(figure, numbers)
    if figure is not None:
        check_format(figure)
    for path in (figure, numbers):
        if path is not None and not dry_run:
            check_output(path, overwrite=overwrite, sources=[source for source in sources if source is not None])


def write_outputs(
    figure: Path | None,
    draw: Callable[[], Figure],
    csv: Path | None,
    table: Callable[[], str],
    *,
    overwrite: bool = False,
) -> None:
    """Write the figure and the table of its numbers, each only where it has a path.

    Args:
        figure: file to draw to; its suffix is its format.
        draw: makes the figure.
        csv: file of the table.
        table: makes the table's text.
        overwrite: replace files that exist.

    Raises:
        OutputError: a file exists and ``overwrite`` is False, or it cannot be written.
    """
    if figure is not None:
        save_figure(draw(), figure, overwrite=overwrite)
    if csv is not None:
        write_atomic(csv, table().encode(), overwrite=overwrite)


def save_figure(figure: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write ``figure`` in the format of ``path``'s suffix.

    Raises:
        OutputError: the suffix is no figure's, ``path`` exists and ``overwrite`` is False, or it cannot be written.
    """
    check_format(path)
    write_atomic(path, _bytes_of(figure, path.suffix.lower()), overwrite=overwrite)


def png_of(figure: Figure) -> bytes:
    """``figure`` as a PNG."""
    return _bytes_of(figure, ".png")


def svg_of(figure: Figure) -> str:
    """``figure`` as an SVG document that is to be a part of a page."""
    return _bytes_of(figure, ".svg", for_page=True).decode()


def _bytes_of(figure: Figure, suffix: str, *, for_page: bool = False) -> bytes:
    from daukit.plots.style import style  # which imports matplotlib; most calls of commands draw nothing

    metadata = FORMATS[suffix]
    buffer = io.BytesIO()
    with style(for_page=for_page):
        kept: dict[str, Any] = {"pil_kwargs": _OF_JPG} if suffix == ".jpg" else {"metadata": metadata}
        figure.savefig(buffer, format=suffix[1:], dpi=200, bbox_inches="tight", **kept)
    return buffer.getvalue()
