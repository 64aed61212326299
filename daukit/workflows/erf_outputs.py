"""The figure and the archive of measured receptive fields."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from daukit.erf import ReceptiveField
from daukit.errors import OutputError
from daukit.files import write_atomic
from daukit.texts import visible
from daukit.workflows import outputs
from daukit.workflows.erf_results import NetworkFields, titles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from daukit.plots.erf import Panel

Fields = Sequence[ReceptiveField]

_HALF = 0.5
"""Share of the influence whose radius stands above a panel."""


def check_field_outputs(
    figure: Path | None,
    npz: Path | None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    sources: Iterable[str | Path] = (),
) -> None:
    """Refuse before the work what could not be written after it. Arguments as in ``outputs.check_outputs``.

    Raises:
        OutputError: a name is another kind of file's, both are the same file, or one of them cannot be written.
    """
    if npz is not None and npz.suffix != ".npz":
        raise OutputError(f"{npz}: a NumPy archive is .npz; give it that suffix")
    outputs.check_outputs(figure, npz, overwrite=overwrite, dry_run=dry_run, sources=sources)


def write_archive(fields: Sequence[Fields], path: Path, *, overwrite: bool = False) -> None:
    """Write the maps by layer, other networks' under ``compare/``, ``compare2/`` and so on.

    numpy dates all members 1980, so bytes repeat.
    """
    prefixes = ["", "compare/", *(f"compare{i}/" for i in range(2, len(fields)))]
    maps: dict[str, Any] = {
        prefix + field.name: field.map.numpy() for prefix, own in zip(prefixes, fields, strict=False) for field in own
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **maps)
    write_atomic(path, buffer.getvalue(), overwrite=overwrite)


def draw_fields(
    networks: Sequence[NetworkFields], fields: Sequence[Fields], width: Literal["page", "column"] = "page"
) -> Figure:
    """Draw the contours of every layer, network by network.

    Args:
        networks: as measured.
        fields: of each network, with their maps.
        width: of the figure in a paper.
    """
    from daukit.plots.erf import plot_receptive_fields  # which imports matplotlib; most calls draw nothing
    from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH

    panels = [
        [panel_of(title, network.weights, field) for field in own]
        for title, network, own in zip(titles_of(networks), networks, fields, strict=True)
    ]
    inches = TEXT_WIDTH if width == "page" else COLUMN_WIDTH
    return plot_receptive_fields(panels, _origins_in_words(fields), width=inches)


def panel_of(title: str, weights: str, field: ReceptiveField) -> Panel:
    """A field as it is drawn, below its network's title and what is known of its training."""
    from daukit.plots.erf import Panel

    levels = {contour.mass: contour.level for contour in field.contours}
    half = next(contour for contour in field.contours if contour.mass == _HALF)
    lines = [visible(title), f"{visible(field.name)}, {weights}", f"{100 * _HALF:g} % radius: {half.radius:.1f} px"]
    if half.radius_interval is not None:
        lines.append("95 % interval: {:.1f} to {:.1f}".format(*half.radius_interval))
    return Panel("\n".join(lines), field.map.abs().numpy(), field.origin, levels)


def _origins_in_words(fields: Sequence[Fields]) -> str:
    centered = {field.origin == field.center for own in fields for field in own}
    if len(centered) > 1:
        return "probed position or centroid"
    return "probed position" if centered.pop() else "centroid"
