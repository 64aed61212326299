"""Draw the cost of pruning: accuracy and the like over units (paper, Fig. 5), or units over the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from daukit.plots.layout import entries_in_line, letters_of_entry, shortened
from daukit.plots.style import COLORS, GUIDE, TEXT_WIDTH, style

MARKERS = "os^Dv<>"
"""One a curve beside its colour, so that curves are told apart in grey, too."""

FEW = 6
"""So many curves and their legend fit a column; more get the page's width."""

_MARKER = 3.5
"""Points."""

_LINE = 0.16
"""Inches of a line of the legend."""


@dataclass(frozen=True)
class Curve:
    """One way to prune a network, ever further.

    Attributes:
        label: what to call it in the legend.
        thresholds: one a point.
        units: units left in the network, or share of them (0 to 1).
        scores: the figures of the network then: its accuracy, for example.
        control: whether it is what the others are compared with; it is drawn dashed and grey.
    """

    label: str
    thresholds: Sequence[float]
    units: Sequence[float]
    scores: Sequence[float] = ()
    control: bool = False


def plot_scores(curves: Sequence[Curve], label: str, *, percent: bool = True, shares: bool = False) -> Figure:
    """Draw a figure against units left, as the paper's Fig. 5; thresholds stand at the points of a single curve.

    Args:
        curves: with scores.
        label: what the scores are.
        percent: whether they are shares, within [0, 1].
        shares: whether their units are shares of a layer's units, not units of the network.
    """
    with style():
        figure, axes = _figure(curves)
        for i, curve in enumerate(curves):
            _draw(axes, curve, curve.units, curve.scores, i)
        axes.set(xlabel="units left in the layer" if shares else "units in the network", ylabel=label)
        axes.set_xlim(0, 1.02 if shares else None)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0) if shares else StrMethodFormatter("{x:,.0f}"))
        pruned = [curve for curve in curves if not curve.control]
        if len(pruned) == 1:
            _name_points(axes, pruned[0])
        _finish(axes, percent)
    return figure


def plot_units(curves: Sequence[Curve]) -> Figure:
    """Draw the share of units left against the threshold, a curve per layer."""
    with style():
        figure, axes = _figure(curves)
        for i, curve in enumerate(curves):
            _draw(axes, curve, curve.thresholds, curve.units, i)
        axes.set(xlabel="threshold", ylabel="units left", ylim=(0, 1.02))
        _finish(axes)
    return figure


def _figure(curves: Sequence[Curve]) -> tuple[Figure, Axes]:
    """A figure with the legend of several curves, below the axes, where it hides none of them."""
    width = TEXT_WIDTH / 2 if len(curves) <= FEW else TEXT_WIDTH
    labels = [shortened(curve.label, letters_of_entry(width)) for curve in curves] if len(curves) > 1 else []
    columns = entries_in_line(labels, width)
    figure = Figure(figsize=(width, TEXT_WIDTH / 2.6 + _LINE * math.ceil(len(labels) / columns)), layout="constrained")
    axes = figure.subplots()
    if labels:
        # Labels come last: matplotlib drops those that begin with "_", and reads what stands between $ as formulas.
        handles = [Line2D([], [], markersize=_MARKER, **_look(curve, i)) for i, curve in enumerate(curves)]
        legend = figure.legend(handles, [str(i) for i in range(len(labels))], loc="outside lower center", ncols=columns)
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set(text=label, parse_math=False)
    return figure, axes


def _look(curve: Curve, place: int) -> dict[str, Any]:
    if curve.control:
        return {"color": GUIDE, "linestyle": "--", "marker": "x"}
    marker = MARKERS[(place + place // len(COLORS)) % len(MARKERS)]
    return {"linestyle": "-", "color": COLORS[place % len(COLORS)], "marker": marker}


def _draw(axes: Axes, curve: Curve, x: Sequence[float], y: Sequence[float], place: int) -> None:
    axes.plot(x, y, markersize=_MARKER, clip_on=False, **_look(curve, place))


def _name_points(axes: Axes, curve: Curve) -> None:
    """Write the threshold at every point of a curve, on its lower right, where a curve that rises leaves room."""
    axes.margins(y=0.12)  # the lowest is above the axis
    axes.set_xlabel(f"{axes.get_xlabel()}, at each point its threshold")
    for threshold, x, y in zip(curve.thresholds, curve.units, curve.scores, strict=True):
        axes.annotate(f"{threshold:g}", (x, y), (4, -8), textcoords="offset points", color=GUIDE, size=6)


def _finish(axes: Axes, percent: bool = True) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=GUIDE, alpha=0.15, linewidth=0.5)
