"""Displacements of a network's units: distances to the centre (the paper's Fig. 6) and 2-D densities (its Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from daukit.plots import layout
from daukit.plots.layout import AXIS_LABEL, BOTTOM, LEFT, RIGHT, ROW_GAP, SMALL_GAP, TICK_LABELS, TOP
from daukit.plots.style import BAND, GUIDE, MARK, PIXEL, TEXT_WIDTH, style

if TYPE_CHECKING:
    from daukit.offsets import Distribution, LayerDistributions
    from daukit.offsets.histograms import Array

_ACROSS = 3
"""Panels across the figure at least, so that few of them do not grow."""

_PADDING = 0.15
"""Inches that saving adds around a figure, which must fit all the same."""

_NARROWEST = {"page": 1.0, "column": 0.5}
"""Inches that a panel needs for its title; many weight filters make a figure wider than the page."""

_CROWDED = 0.35
"""Spikes nearer to each other than this part of an axis have their names above each other."""

# Hollow, so that the units that stayed at an initialisation point can be seen within its dot.
_DOT: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "none", "color": MARK, "linestyle": ""}


# Squares, as pixels are; hollow, so that the density of what is rounded to them shows within.
_PIXEL: dict[str, Any] = {"marker": "s", "facecolors": "none", "edgecolors": PIXEL, "linewidths": 0.8}

_PIXEL_AREA = 60.0
"""Area in square points of a pixel's mark that stands for the largest share of ``|w|``; others have theirs of it."""

# Units at the limit along an axis lie there.
_BAND: dict[str, Any] = {"facecolor": BAND, "edgecolor": GUIDE, "linestyle": ":", "linewidth": 0.8}


def plot_displacements(
    layers: Sequence[LayerDistributions], kind: Literal["1d", "2d", "both"] = "both", *, width: float = TEXT_WIDTH
) -> Figure:
    """Draw the distributions of one network.

    Args:
        layers: from ``daukit.displacement_distributions``, in the order to draw them.
        kind: ``"1d"``, a panel per layer and a line per weight filter; ``"2d"``, a row per layer and a column per
            weight filter; ``"both"``, the same with the layer's 1-D panel as the first column.
        width: of the figure in inches, ``TEXT_WIDTH`` or, not for ``"both"``, ``COLUMN_WIDTH``.

    Raises:
        ValueError: ``"both"`` in a column.
    """
    if kind == "both" and width < TEXT_WIDTH:
        raise ValueError(f'kind "both" needs a page\'s width ({TEXT_WIDTH} inches), got {width}; draw "1d" and "2d"')
    with style():
        return _distances(layers, width) if kind == "1d" else _densities(layers, kind == "both", width)


def _distances(layers: Sequence[LayerDistributions], width: float) -> Figure:
    figure, (panels,), columns = layout.panel_grid(len(layers), width)
    for i, (layer, axes) in enumerate(zip(layers, panels, strict=True)):
        draw_distances(axes, layer)
        layout.name_panel(axes, layer.name, layer.units)
        axes.set_ylabel("density (1/px)" if i % columns == 0 else "")
        axes.set_xlabel("distance to centre (px)" if i + columns >= len(layers) else "")
    layout.draw_legend(figure, marks_of(layers, lines=True))
    return figure


def _densities(layers: Sequence[LayerDistributions], with_distances: bool, width: float) -> Figure:
    filters, narrow = len(layers[0].distributions), width < TEXT_WIDTH
    first = LEFT + (TICK_LABELS + AXIS_LABEL) * with_distances  # left edge of the densities, but for the 1-D panel
    room = width - first - RIGHT - SMALL_GAP * filters - _PADDING
    side = max(room / max(filters + with_distances, _ACROSS), _NARROWEST["column" if narrow else "page"])
    first += side * with_distances
    right, below, top = side + SMALL_GAP, side + ROW_GAP, TOP + 0.15 * narrow  # a narrow title has a line more
    figure = Figure((first + filters * right + RIGHT, top + len(layers) * below - ROW_GAP + BOTTOM))
    for i, layer in enumerate(layers):
        is_last = i == len(layers) - 1
        if with_distances:
            axes = layout.panel(figure, LEFT, top, side, side)
            draw_distances(axes, layer)
            layout.name_row(axes, layer.name, "density (1/px)")
            axes.set_xlabel("distance to centre (px)" if is_last else "")
        norm, extend = layout.color_scale([distribution.density_2d for distribution in layer.distributions])
        for j, distribution in enumerate(layer.distributions):
            axes = layout.panel(figure, first + j * right, top, side, side)
            draw_density(axes, layer, distribution, norm)
            axes.tick_params(labelleft=j == 0)
            if j == 0 and with_distances:
                axes.set_ylabel("y (px)")
            elif j == 0:
                layout.name_row(axes, layer.name, "y (px)")
            axes.set_xlabel("x (px)" if is_last else "")
            axes.set_title(_density_title(distribution, i == 0, narrow))
        if layer.mean_distance is not None:
            layout.color_bar(figure, norm, first + filters * right, top, side, extend)
        top += below
    layout.draw_legend(figure, marks_of(layers, lines=with_distances))
    return figure


def _density_title(distribution: Distribution, is_first: bool, narrow: bool) -> str:
    """Of how many units the panel is and, in the first row, which filter keeps them."""
    kept = f"n={distribution.units:,}" if narrow else f"n = {distribution.units:,}"
    label = distribution.label
    if narrow:  # after "top 90%" or "|w| ≥ 0.9"
        label = label.replace(" by ", "\nby ").replace(" max ", "\nmax ")
    return f"{label}\n{kept}" if is_first else kept


def draw_distances(axes: Axes, layer: LayerDistributions) -> None:
    """Draw how far a layer's units are from the centre, a curve per weight filter."""
    if layer.mean_distance is not None:
        layout.draw_curves(axes, [each.density for each in layer.distributions], layer.distance_edges)
    if layer.limit is not None:
        # Distances are Euclidean, and the limit is one per axis, a box: units at it lie from its edge to its corner.
        axes.axvspan(min(layer.limit), math.hypot(*layer.limit), **_BAND, zorder=0)
    if layer.points is not None:
        radii = np.unique(np.hypot(*layer.points).round(9))
        axes.plot(radii, np.zeros_like(radii), **_DOT, clip_on=False, zorder=3)
    if layer.pixels is not None and layer.pixel_shares is not None:
        radii, which = np.unique(np.hypot(*layer.pixels).round(9), return_inverse=True)
        shares = np.bincount(which.reshape(-1), layer.pixel_shares).astype(np.float64)
        _draw_pixels(axes, radii, np.zeros_like(radii), shares)
    axes.xaxis.set_major_locator(layout.pixels())
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(0, layer.distance_edges[-1])
    axes.set_ylim(0)
    if layer.mean_distance is None:
        axes.set_yticks([])
        layout.say_why_empty(axes, layer.units)
    else:
        _name_spikes(axes, layer)


def _name_spikes(axes: Axes, layer: LayerDistributions) -> None:
    """Write, above every spike of the first filter, its share of the weight and what put it there, if that is known."""
    level, last = 0, -math.inf
    for spike in layer.distributions[0].spikes:
        level = level + 1 if spike.distance - last < _CROWDED * layer.distance_edges[-1] else 0
        last, bin = spike.distance, int(np.searchsorted(layer.distance_edges, spike.distance)) - 1
        height = max(float(each.density[bin]) for each in layer.distributions)
        words, offset = "\n".join(filter(None, (f"{spike.weight:.0%}", spike.reason))), (0, 2 + 15 * level)
        axes.annotate(words, (spike.distance, height), offset, textcoords="offset points", ha="center", fontsize=6)
        axes.set_ylim(0, max(axes.get_ylim()[1], (1.2 + 0.2 * level) * height))


def draw_density(axes: Axes, layer: LayerDistributions, distribution: Distribution, norm: Normalize) -> None:
    """Draw where the units lie that a weight filter keeps."""
    half = float(layer.edges[-1])
    layout.draw_square(axes, distribution.density_2d, half, norm, half)
    layout.draw_limit(axes, layer.limit)
    if layer.points is not None:
        axes.plot(layer.points[1], layer.points[0], **_DOT)
    if layer.pixels is not None and layer.pixel_shares is not None:
        _draw_pixels(axes, layer.pixels[1], layer.pixels[0], layer.pixel_shares)
    if layer.mean_distance is None:
        layout.say_why_empty(axes, layer.units)


def _draw_pixels(axes: Axes, x: Array, y: Array, shares: Array) -> None:
    """A square at every whole pixel that is read, its area by the share of ``|w|`` that reads there."""
    largest = float(shares.max(initial=0.0)) or 1.0
    axes.scatter(x, y, _PIXEL_AREA * shares / largest, **_PIXEL, clip_on=False, zorder=4)


def marks_of(layers: Sequence[LayerDistributions], *, lines: bool) -> list[Any]:
    """Entries of the legend of such panels: of distances, with ``lines``, or of densities."""
    handles: list[Any] = []
    if lines and any(layer.mean_distance is not None for layer in layers):
        handles += layout.curve_handles([distribution.label for distribution in layers[0].distributions])
    if any(layer.points is not None for layer in layers):
        handles.append(Line2D([], [], **_DOT, label="initialisation"))
    if any(layer.pixels is not None for layer in layers):
        square = Line2D([], [], marker="s", markersize=5, markerfacecolor="none", color=PIXEL, linestyle="")
        square.set_label("reads at whole pixels (area: share of |w|)")
        handles.append(square)
    if any(layer.limit is not None for layer in layers):
        band = Patch(**_BAND, label="limit per axis, from edge to corner")
        handles.append(band if lines else layout.limit_line())
    return handles
