"""Measure and draw where a checkpoint's units sit, where they moved, and how wide they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daukit import offsets
from daukit.checkpoint import Checkpoint
from daukit.offsets import BINS, KEEP, NEAR, FilterRule, Group
from daukit.offsets.summaries import (
    ChangeSummary,
    DisplacementSummary,
    SigmaSummary,
    summarize_changes,
    summarize_displacements,
    summarize_sigmas,
)
from daukit.results import Positive
from daukit.texts import visible
from daukit.workflows import outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["1d", "2d", "both", "change", "sigma"]
Width = Literal["page", "column"]


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """Measures of a checkpoint's units.

    Attributes:
        kind: what the figure draws.
        weight_filter: rule of the weight filters.
        near: distance in pixels up to which a unit counts as unmoved.
        before: path of the earlier checkpoint; null without one.
        output: path of the figure written; null where none was.
        csv: path of the table written; null where none was.
        layers: the layers, or groups of layers, in the network's order.
    """

    weight_filter: FilterRule
    near: Positive
    before: Path | None
    output: Path | None
    csv: Path | None


@dataclass(frozen=True, kw_only=True)
class DisplacementPlot(_Plot):
    """Distributions of displacements, in pixels of the layers' inputs."""

    kind: Literal["1d", "2d", "both"]
    layers: tuple[DisplacementSummary, ...]


@dataclass(frozen=True, kw_only=True)
class ChangePlot(_Plot):
    """Distributions of the changes of displacements, in pixels of the layers' inputs."""

    kind: Literal["change"]
    layers: tuple[ChangeSummary, ...]


@dataclass(frozen=True, kw_only=True)
class SigmaPlot(_Plot):
    """Distributions of sigmas, in dilated pixels."""

    kind: Literal["sigma"]
    layers: tuple[SigmaSummary, ...]


OffsetsPlot = DisplacementPlot | ChangePlot | SigmaPlot


def plot_offsets(
    checkpoint: Checkpoint,
    *,
    kind: Kind | None = None,
    before: Checkpoint | None = None,
    layers: Sequence[str] | None = None,
    group: Group = "layer",
    stages: Sequence[str] = (),
    rule: FilterRule = "keep-top",
    shares: Sequence[float] = KEEP,
    bins: int = BINS,
    near: float = NEAR,
    width: Width = "page",
    output: Path | None = None,
    csv: Path | None = None,
    overwrite: bool = False,
) -> OffsetsPlot:
    """Measure a checkpoint's units, and draw them or write the numbers behind the drawing.

    Args:
        checkpoint: any network with DAU layers, dense or pruned.
        kind: distances to the centre (``"1d"``, the paper's Fig. 6), densities in the plane (``"2d"``, its Fig. 7),
            ``"both"``, the ``"change"`` since ``before``, or ``"sigma"`` (its Fig. 4). If omitted, ``"both"``, and
            ``"change"`` with ``before``.
        before: the same units at an earlier time.
        layers: names of layers. If omitted, all DAU layers are measured.
        group: as in ``daukit.displacement_distributions``.
        stages: as in ``daukit.displacement_distributions``.
        rule: rule of the weight filters; see ``daukit.offsets.WeightFilter``.
        shares: one weight filter each.
        bins: cells across a panel.
        near: a unit within this distance of where it started, in pixels, has not moved.
        width: of the figure: a page's, or a column's for ``"1d"``, ``"2d"`` and ``"sigma"``.
        output: file to draw to: .png, .jpg, .pdf or .svg.
        csv: file of the numbers behind the curves.
        overwrite: replace files that exist.

    Raises:
        ValueError: an option outside its range, a stage of no layer, or a ``kind`` that does not go with ``before`` or
            ``width``.
        CheckpointError: a layer is missing or damaged, or has other units in ``before``.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    kind = kind or ("both" if before is None else "change")
    _check_kind(kind, before is not None, width)
    earlier = None if before is None else before.path
    outputs.check_outputs(output, csv, overwrite=overwrite, sources=[checkpoint.path, earlier])
    said: dict[str, Any] = {"weight_filter": rule, "near": near, "before": earlier, "output": output, "csv": csv}
    choices: dict[str, Any] = {
        "layers": layers, "group": group, "stages": stages, "rule": rule, "shares": shares, "bins": bins
    }  # fmt: skip
    result: OffsetsPlot
    measured: Sequence[Any]
    table: Callable[[], str]
    if kind == "sigma":
        measured = sigmas = offsets.sigma_distributions(checkpoint, before=before, **choices)
        result = SigmaPlot(kind=kind, layers=tuple(map(summarize_sigmas, sigmas)), **said)
        table = partial(offsets.sigmas_to_csv, sigmas)
    elif kind == "change":
        assert before is not None  # _check_kind
        measured = changes = offsets.displacement_changes(checkpoint, before, near=near, **choices)
        result = ChangePlot(kind=kind, layers=tuple(map(summarize_changes, changes)), **said)
        table = partial(offsets.changes_to_csv, changes)
    else:
        measured = displacements = offsets.displacement_distributions(checkpoint, near=near, **choices)
        result = DisplacementPlot(kind=kind, layers=tuple(map(summarize_displacements, displacements)), **said)
        table = partial(offsets.to_csv, displacements, ("1d", "2d") if kind == "both" else (kind,))
    outputs.write_outputs(output, partial(_draw, kind, measured, width), csv, table, overwrite=overwrite)
    return result


def _check_kind(kind: Kind, has_before: bool, width: Width) -> None:
    if kind == "change" and not has_before:
        raise ValueError("a change needs a second checkpoint: give before")
    if kind in ("1d", "2d", "both") and has_before:
        raise ValueError(f'kind "{kind}" draws one checkpoint; with before it is "change" or "sigma"')
    if kind in ("both", "change") and width == "column":
        raise ValueError(f'kind "{kind}" needs a page\'s width; a column holds "1d", "2d" and "sigma"')


def _draw(kind: Kind, measured: Sequence[Any], width: Width) -> Figure:
    from daukit.plots.changes import plot_changes
    from daukit.plots.offsets import plot_displacements
    from daukit.plots.sigmas import plot_sigmas
    from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH

    shown = [replace(layer, name=visible(layer.name)) for layer in measured]
    inches = TEXT_WIDTH if width == "page" else COLUMN_WIDTH
    if kind == "sigma":
        return plot_sigmas(shown, width=inches)
    return plot_changes(shown) if kind == "change" else plot_displacements(shown, kind, width=inches)


def displacements_png(checkpoint: Checkpoint) -> bytes:
    """The figure of displacements as a PNG."""
    return outputs.png_of(_draw("both", offsets.displacement_distributions(checkpoint), "page"))
