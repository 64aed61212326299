"""Figures of single layers, as narrow as the screen of a telephone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from daukit.plots import layout
from daukit.plots.erf import CONTOURS, Panel, draw_field
from daukit.plots.layout import AXIS_LABEL, LEFT, TICK_LABELS
from daukit.plots.offsets import draw_density, draw_distances, marks_of
from daukit.plots.sigmas import draw_values
from daukit.plots.style import COLORS, style

if TYPE_CHECKING:
    from daukit.offsets import Distribution, LayerDistributions, LayerSigmas, LayerWeights

WIDTH = 3.1
"""Inches, of which a telephone has 3.75."""

_HEIGHT = 1.35
_SIDE = 1.9
_BELOW = TICK_LABELS + AXIS_LABEL + 0.1
_ABOVE = 0.12


def distance_card(layer: LayerDistributions) -> Figure:
    """How far a layer's units are from the centre, a curve per weight filter (Fig. 6)."""
    with style():
        figure, axes = _card(_HEIGHT)
        draw_distances(axes, layer)
        axes.set(xlabel="distance to centre (px)", ylabel="density (1/px)")
        layout.draw_legend(figure, marks_of([layer], lines=True))
    return figure


def density_card(layer: LayerDistributions, distribution: Distribution) -> Figure:
    """Where the units lie that a weight filter keeps (Fig. 7)."""
    with style():
        figure = Figure((WIDTH, _ABOVE + _SIDE + _BELOW))
        axes = layout.panel(figure, LEFT, _ABOVE, _SIDE, _SIDE)
        norm, extend = layout.color_scale([distribution.density_2d])
        draw_density(axes, layer, distribution, norm)
        axes.set(xlabel="x (px)", ylabel="y (px)")
        if layer.mean_distance is not None:
            layout.color_bar(figure, norm, LEFT + _SIDE + 0.1, _ABOVE, _SIDE, extend)
    return figure


def sigma_card(layer: LayerSigmas) -> Figure:
    """How wide a layer's units are."""
    with style():
        figure, axes = _card(_HEIGHT)
        draw_values(axes, layer.now, None, layer.units)
        axes.set(xlabel="sigma (px)", ylabel="density (1/px)")
    return figure


def weight_card(layer: LayerWeights) -> Figure:
    """The sizes of a layer's weights, as shares of the largest: thresholds are such shares."""
    with style():
        figure, axes = _card(_HEIGHT)
        if not layer.largest:
            layout.say_why_empty(axes, layer.units)
            axes.set(xticks=[], yticks=[])
            return figure
        shares = layer.edges / layer.largest
        axes.stairs(layer.counts / layer.units, shares, fill=True, facecolor=(COLORS[0], 0.3), edgecolor=COLORS[0])
        axes.set(xlabel="|w|, as a share of the layer's largest", ylabel="units", xlim=(0, 1))
        axes.set_ylim(0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def field_card(panel: Panel, levels: Sequence[float]) -> Figure:
    """A layer's effective receptive field: the contours of ``panel``, and one for each of ``levels`` to choose from.

    In an SVG the former are in groups whose names begin with ``choices-``; each of the latter is a group ``choice-``
    with its number.
    """
    with style():
        figure = Figure((WIDTH, _ABOVE + _SIDE + _BELOW))
        axes = layout.panel(figure, LEFT, _ABOVE, _SIDE, _SIDE)
        contours = draw_field(axes, panel, panel.view, ticks=5)
        for i, (share, color, contour) in enumerate(zip(panel.levels, CONTOURS, contours, strict=False)):
            contour.set_gid(f"choices-{i}")
            words = axes.text(
                1.04, 0.98 - 0.1 * i, f"{100 * share:g} %", transform=axes.transAxes, va="top", color=color
            )
            words.set_gid(f"choices-words-{i}")
        padded = np.pad(panel.influence, 1)
        y, x = (np.arange(size) - 1 - zero for size, zero in zip(padded.shape, panel.origin, strict=True))
        for i, level in enumerate(levels):
            line = axes.contour(x, y, padded, levels=[panel.drawn_level(level)], colors=[CONTOURS[0]], linewidths=1.2)
            line.set_gid(f"choice-{i}")
        axes.set(xlabel="x (input pixels)", ylabel="y (input pixels)")
    return figure


def _card(height: float) -> tuple[Figure, Axes]:
    """A card with one panel."""
    figure = Figure((WIDTH, _ABOVE + height + _BELOW))
    return figure, layout.panel(figure, LEFT, _ABOVE, WIDTH - LEFT - 0.15, height)
