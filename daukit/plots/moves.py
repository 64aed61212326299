"""How far units moved over the epochs of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from daukit.plots import layout
from daukit.plots.style import COLORS, GUIDE, TEXT_WIDTH, style

_MARKERS = "os^DvPX"
"""Of the runs: prints in grey have no colours."""
_MARKED = 8
"""Marks along a curve, about."""
_DASHED = (0, (3.0, 1.5))
_ROOM = 1.08
"""Top of the axes over the largest value."""


@dataclass(frozen=True)
class MoveCurves:
    """How far the units of a layer moved, with a value per epoch in each sequence.

    Attributes:
        epochs: numbers of the epochs.
        mean: mean distance from the start of the run, in pixels of the layer's input.
        epoch_mean: mean distance from the start of the epoch, in the same pixels.
        beyond_a_pixel: share of the units that are more than a pixel from the start.
        at_limit: share of the units at their limit.
    """

    epochs: Sequence[int]
    mean: Sequence[float]
    epoch_mean: Sequence[float]
    beyond_a_pixel: Sequence[float]
    at_limit: Sequence[float]


def plot_moves(runs: Mapping[str, Mapping[str, MoveCurves]], *, width: float = TEXT_WIDTH) -> Figure:
    """Draw how far units moved: a panel of distances per layer, and one of shares below it.

    All panels of a kind have the same axes, so that layers can be compared.

    Args:
        runs: for each training, by its name, the curves of its layers, by theirs; no more than there are ``COLORS``.
        width: of the figure in inches, ``TEXT_WIDTH`` or ``COLUMN_WIDTH``.
    """
    names = list(dict.fromkeys(name for layers in runs.values() for name in layers))
    curves = [each for layers in runs.values() for each in layers.values()]
    far = _ROOM * (max(max(*each.mean, *each.epoch_mean) for each in curves) or 1.0)
    most = _ROOM * (max(max(*each.beyond_a_pixel, *each.at_limit) for each in curves) or 0.1)
    with style():
        figure, (distances, shares), columns = layout.panel_grid(len(names), width, 2)
        for i, (name, above, below) in enumerate(zip(names, distances, shares, strict=True)):
            for look, layers in zip(_looks(), runs.values(), strict=False):
                if name in layers:
                    each = layers[name]
                    _draw(above, look, each.epochs, each.mean, each.epoch_mean)
                    _draw(below, look, each.epochs, each.beyond_a_pixel, each.at_limit)
            layout.name_panel(above, name)
            _scale(above, curves, far)
            _scale(below, curves, most)
            below.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
            above.set_ylabel("moved (px)" if i % columns == 0 else "")
            below.set_ylabel("share of units" if i % columns == 0 else "")
            below.set_xlabel("epoch" if i + columns >= len(names) else "")
        layout.draw_legend(figure, _handles(list(runs), width))
    return figure


def _looks() -> list[dict[str, Any]]:
    return [{"color": color, "marker": marker} for color, marker in zip(COLORS, _MARKERS, strict=True)]


def _draw(
    axes: Axes, look: Mapping[str, Any], epochs: Sequence[int], full: Sequence[float], dashed: Sequence[float]
) -> None:
    """Two curves of a run; the dashed one comes second, so that it is seen where both coincide."""
    every = max(1, len(epochs) // _MARKED)
    for values, line in ((full, "-"), (dashed, _DASHED)):
        face = look["color"] if line == "-" else "white"
        axes.plot(
            epochs, values, linestyle=line, markersize=3, markerfacecolor=face, markevery=every, clip_on=False, **look
        )


def _scale(axes: Axes, curves: Sequence[MoveCurves], top: float) -> None:
    last = max(each.epochs[-1] for each in curves)
    axes.set_xlim(0, last + 0.04 * last)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _handles(names: Sequence[str], width: float) -> list[Line2D]:
    """The legend's entries: what lines are, and where there are several runs, which is which."""
    lines = [
        Line2D([], [], color=GUIDE, linestyle="-", label="since the start (above), beyond a pixel (below)"),
        Line2D([], [], color=GUIDE, linestyle=_DASHED, label="within the epoch (above), at the limit (below)"),
    ]
    if len(names) == 1:
        return lines
    letters = layout.letters_of_entry(width)
    runs = [
        Line2D([], [], markersize=3, label=layout.shortened(name, letters), **look)
        for name, look in zip(names, _looks(), strict=False)
    ]
    return [*lines, *runs]
