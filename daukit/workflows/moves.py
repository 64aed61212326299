"""Draw how far units moved while networks were trained, from the logs of their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from daukit.errors import DataError
from daukit.results import Positive, Share, Size, result_of
from daukit.texts import csv_text, did_you_mean, visible
from daukit.training.log import read_log
from daukit.training.moves import UnitMoves
from daukit.workflows import outputs
from daukit.workflows.labels import check_labels, labels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Width = Literal["page", "column"]
MOST_LOGS = 7
"""Logs in a figure at most: there are no more colours that readers tell apart."""

_VALUES = ("mean", "beyond_a_pixel", "at_limit", "epoch_mean")


@dataclass(frozen=True, kw_only=True)
class LoggedLayer:
    """How far the units of a layer had moved by the last epoch of a log.

    Attributes:
        name: name of the layer.
        mean: mean distance from where they were when the run began, in pixels of the layer's input.
        beyond_a_pixel: share of the units that are more than a pixel from there.
        at_limit: share of the units at their limit along y or x.
        epoch_mean: mean distance from where they were when the epoch began.
    """

    name: str
    mean: Positive
    beyond_a_pixel: Share
    at_limit: Share
    epoch_mean: Positive


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """The end of a log.

    Attributes:
        log: path of the log.
        epochs: epochs that it tells of.
        layers: the layers whose displacements learned, in the network's order.
    """

    log: Path
    epochs: Size
    layers: tuple[LoggedLayer, ...]


@dataclass(frozen=True, kw_only=True)
class MovesPlot:
    """How far units moved while networks were trained.

    Attributes:
        kind: what the figure draws.
        logs: the logs, in the order in which they were given.
        output: path of the figure written; null where none was.
        csv: path of the table written; null where none was.
    """

    kind: Literal["moves"]
    logs: tuple[TrainingLog, ...]
    output: Path | None
    csv: Path | None


def plot_moves(
    logs: Sequence[Path],
    *,
    layers: Sequence[str] | None = None,
    width: Width = "page",
    labels: Sequence[str] = (),
    output: Path | None = None,
    csv: Path | None = None,
    overwrite: bool = False,
) -> MovesPlot:
    """Read logs of trainings, and draw how far units moved over their epochs or write the numbers.

    Args:
        logs: ``.jsonl`` files that ``daukit train`` wrote, at most ``MOST_LOGS``, to compare in one figure.
        layers: names of layers. If omitted, all that learnt displacements are drawn.
        width: of the figure, a page's or a column's.
        labels: what to call the logs in the figure; default: by their files.
        output: file to draw to: .png, .jpg, .pdf or .svg.
        csv: file of the numbers.
        overwrite: replace files that exist.

    Raises:
        ValueError: there is no log, one is given twice, there are too many of them, or ``labels`` do not tell them
            apart, or there is but one.
        DataError: a file is no log, does not say how far units moved, or has no layer of such a name.
        OutputError: a file cannot be written, or it exists and ``overwrite`` is False.
    """
    check_logs(logs)
    check_labelled(labels, len(logs))
    outputs.check_outputs(output, csv, overwrite=overwrite, sources=logs)
    curves = {path: _curves(path, layers) for path in logs}
    draw, table = partial(_draw, curves, width, labels), partial(_table, curves)
    outputs.write_outputs(output, draw, csv, table, overwrite=overwrite)
    told = tuple(
        TrainingLog(
            log=path,
            epochs=max(epochs[-1].epoch for epochs in read.values()),
            layers=tuple(result_of(LoggedLayer, epochs[-1].moves, name=name) for name, epochs in read.items()),
        )
        for path, read in curves.items()
    )
    return MovesPlot(kind="moves", logs=told, output=output, csv=csv)


def check_logs(logs: Sequence[Path]) -> None:
    """Raise ``ValueError`` unless a figure can hold these logs."""
    if not 1 <= len(logs) <= MOST_LOGS:
        raise ValueError(f"a figure takes from 1 to {MOST_LOGS} logs, got {len(logs)}")
    for number, path in enumerate(logs):
        if path in logs[:number]:
            raise ValueError(f"{path} is given twice; drop one")


def check_labelled(labels: Sequence[str], count: int) -> None:
    """Raise ``ValueError`` unless so many logs can be called like this in a figure."""
    check_labels(labels, count)
    if labels and count == 1:
        raise ValueError("a figure of one log does not name it, so it takes no label")


@dataclass(frozen=True)
class _Epoch:
    epoch: int
    moves: UnitMoves


_Curves = Mapping[str, Sequence[_Epoch]]
"""By the names of layers."""


def _curves(path: Path, layers: Sequence[str] | None) -> _Curves:
    """The layers of a log that are asked for, each with its epochs."""
    told = [(result.epoch, result.moves) for result in read_log(path) if result.moves is not None]
    if not told:
        raise DataError(
            f"{path}: does not say how far units moved: no displacement learned, or daukit 0.1 wrote it; give the log "
            "of a training of this version"
        )
    names = list(told[0][1].layers)
    for name in layers or ():
        if name not in names:
            raise DataError(
                f"{path}: there is no layer {name!r}{did_you_mean(name, names)} (layers: {', '.join(names)})"
            )
    return {name: [_Epoch(epoch, moves.layers[name]) for epoch, moves in told] for name in layers or names}


def _table(curves: Mapping[Path, _Curves]) -> str:
    rows = [
        (str(path), name, each.epoch, *(getattr(each.moves, value) for value in _VALUES))
        for path, layers in curves.items()
        for name, epochs in layers.items()
        for each in epochs
    ]
    return csv_text(("log", "layer", "epoch", *_VALUES), rows)


def _draw(curves: Mapping[Path, _Curves], width: Width, labels: Sequence[str]) -> Figure:
    from daukit.plots.moves import MoveCurves, plot_moves
    from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH

    runs = {
        name: {
            visible(layer): MoveCurves(
                [each.epoch for each in epochs],
                **{value: [getattr(each.moves, value) for each in epochs] for value in _VALUES},
            )
            for layer, epochs in layers.items()
        }
        for name, layers in zip(labels or labels_of([*curves], endings=False), curves.values(), strict=True)
    }
    return plot_moves(runs, width=TEXT_WIDTH if width == "page" else COLUMN_WIDTH)
