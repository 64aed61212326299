"""What pruning costs: units against accuracy (paper, Fig. 5); without accuracies, units against the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from daukit.plots.style import COLORS, GUIDE, TEXT_WIDTH, style

MARKERS = "os^Dv<>"
"""One a curve beside its colour, so that curves are told apart in grey, too."""

BESIDE = 6
"""Up to so many curves the legend is inside the axes."""


@dataclass(frozen=True)
class Curve:
    """One way to prune a network, ever further.

    Attributes:
        label: what to call it in the legend.
        thresholds: one a point.
        units: units left in the network, or share of them (0 to 1).
        accuracy: share of images (0 to 1) that the network then classifies right.
        control: whether it is what the others are compared with; it is drawn dashed and grey.
    """

    label: str
    thresholds: Sequence[float]
    units: Sequence[float]
    accuracy: Sequence[float] = ()
    control: bool = False


def plot_accuracy(curves: Sequence[Curve], *, shares: bool = False) -> Figure:
    """Draw accuracy against units left, as the paper's Fig. 5; thresholds stand at the points of a single curve.

    Args:
        curves: with accuracies.
        shares: whether their units are shares of a layer's units, not units of the network.
    """
    with style():
        figure, axes = _figure(len(curves))
        for i, curve in enumerate(curves):
            _draw(axes, curve, curve.units, curve.accuracy, i)
        axes.set(xlabel="units left in the layer" if shares else "units in the network", ylabel="accuracy")
        axes.set_xlim(0, 1.02 if shares else None)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0) if shares else StrMethodFormatter("{x:,.0f}"))
        pruned = [curve for curve in curves if not curve.control]
        if len(pruned) == 1:
            _name_points(axes, pruned[0])
        _finish(axes, curves)
    return figure


def plot_units(curves: Sequence[Curve]) -> Figure:
    """Draw the share of units left against the threshold, a curve per layer."""
    with style():
        figure, axes = _figure(len(curves))
        for i, curve in enumerate(curves):
            _draw(axes, curve, curve.thresholds, curve.units, i)
        axes.set(xlabel="threshold", ylabel="units left", ylim=(0, 1.02))
        _finish(axes, curves)
    return figure


def _figure(curves: int) -> tuple[Figure, Axes]:
    """A column wide; as wide as the page where a long legend takes a part of it."""
    width = TEXT_WIDTH / 2 if curves <= BESIDE else TEXT_WIDTH
    figure = Figure(figsize=(width, TEXT_WIDTH / 2.6), layout="constrained")
    return figure, figure.subplots()


def _draw(axes: Axes, curve: Curve, x: Sequence[float], y: Sequence[float], place: int) -> None:
    look = {"color": GUIDE, "linestyle": "--", "marker": "x"}
    if not curve.control:
        look = {
            "linestyle": "-",
            "color": COLORS[place % len(COLORS)],
            "marker": MARKERS[(place + place // len(COLORS)) % len(MARKERS)],
        }
    axes.plot(x, y, label=curve.label, markersize=3.5, clip_on=False, **look)  # type: ignore[arg-type]  # strings


def _name_points(axes: Axes, curve: Curve) -> None:
    """Write the threshold at every point of a curve, on its lower right, where a curve that rises leaves room."""
    axes.set_xlabel(f"{axes.get_xlabel()}, at each point its threshold")
    for threshold, x, y in zip(curve.thresholds, curve.units, curve.accuracy, strict=True):
        axes.annotate(f"{threshold:g}", (x, y), (4, -8), textcoords="offset points", color=GUIDE, size=6)


def _finish(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=GUIDE, alpha=0.15, linewidth=0.5)
    if len(curves) > 1:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "ncols": -(-len(curves) // 16)}
        legend = axes.legend(**({"loc": "best"} if len(curves) <= BESIDE else beside))
        for text in legend.get_texts():
            text.set_parse_math(False)
