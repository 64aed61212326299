"""Draw the moves of units between two checkpoints: distance, direction, and places before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from daukit.plots import layout
from daukit.plots.layout import AXIS_LABEL, BOTTOM, LEFT, ROW_GAP, SMALL_GAP, TICK_LABELS, TOP
from daukit.plots.style import GUIDE, MARK, TEXT_WIDTH, style

if TYPE_CHECKING:
    from daukit.offsets import LayerChanges

Array = NDArray[np.float64]

SHOWN = 0.99
"""The arrows drawn are of the cells that hold most of the weight, and so much of it together: the rest is a scatter of
single units."""

_BAR_ROOM = 0.92
"""Inches for a colour bar with its labels."""


def plot_changes(layers: Sequence[LayerChanges]) -> Figure:
    """Draw how displacements changed, on a page's width: a row per layer, and three panels in it.

    The distances moved, a line per weight filter; the density of the change of the first filter's units; and, over the
    density of where units are now, an arrow per cell from where its units were on average to where they are.

    Args:
        layers: from ``daukit.offsets.displacement_changes``, in the order to draw them.
    """
    gap = TICK_LABELS + AXIS_LABEL
    side = (TEXT_WIDTH - LEFT - 2 * gap - 2 * _BAR_ROOM) / 3
    lefts = [LEFT, LEFT + side + gap, LEFT + 2 * (side + gap) + _BAR_ROOM]
    below = side + ROW_GAP
    with style():
        figure = Figure((TEXT_WIDTH, TOP + len(layers) * below - ROW_GAP + BOTTOM))
        for i, layer in enumerate(layers):
            top = TOP + i * below
            panels = [layout.panel(figure, left, top, side, side) for left in lefts]
            _draw_distances(panels[0], layer)
            maps = (_draw_changes(panels[1], layer), _draw_flow(panels[2], layer))
            for norm, left in zip(maps, lefts[1:], strict=True):
                if norm is not None:
                    layout.color_bar(figure, norm, left + side + SMALL_GAP, top, side, "neither")
            _label(panels, layer, is_first=i == 0, is_last=i == len(layers) - 1)
        layout.draw_legend(figure, _handles(layers))
    return figure


def _draw_distances(axes: Axes, layer: LayerChanges) -> None:
    if _is_empty(axes, layer):
        axes.set(xticks=[], yticks=[])
        return
    layout.draw_curves(axes, [each.density for each in layer.distributions], layer.distance_edges)
    farthest = max((_last(distribution.density) for distribution in layer.distributions), default=1)
    axes.set_xlim(0, layer.distance_edges[farthest])
    axes.set_ylim(0)


def _is_empty(axes: Axes, layer: LayerChanges) -> bool:
    """True if there is no move to draw; the axes say why."""
    if layer.mean_distance is None:
        layout.say_why_empty(axes, layer.units)
    elif layer.mean_distance == 0:
        layout.say(axes, "nothing moved")
    return not layer.mean_distance


def _draw_changes(axes: Axes, layer: LayerChanges) -> Normalize | None:
    if _is_empty(axes, layer):
        axes.set(xticks=[], yticks=[])
        return None
    density, half = layer.distributions[0].density_2d, float(layer.edges[-1])
    norm, _ = layout.color_scale([density])
    layout.draw_square(axes, density, half, norm, half)
    axes.axhline(0, color=GUIDE, linewidth=0.4)
    axes.axvline(0, color=GUIDE, linewidth=0.4)
    return norm


def _draw_flow(axes: Axes, layer: LayerChanges) -> Normalize | None:
    flow, half = layer.flow, float(layer.flow.edges[-1])
    norm, _ = layout.color_scale([flow.density])
    layout.draw_square(axes, flow.density, half, norm, half)
    layout.draw_limit(axes, layer.limit)
    if layer.mean_distance is None:
        layout.say_why_empty(axes, layer.units)
        return None
    if layer.mean_distance == 0:
        return norm
    rows, columns = _heaviest(flow.density)
    (y, x), (to_y, to_x) = flow.before[:, rows, columns], flow.after[:, rows, columns]
    axes.quiver(
        x, y, to_x - x, to_y - y, color=MARK, angles="xy", scale_units="xy", scale=1,
        units="inches", width=0.013, headwidth=4, headlength=4, headaxislength=3.5, minlength=0.3,
        edgecolor="white", linewidth=0.3,
    )  # fmt: skip
    return norm


def _heaviest(density: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns of the fewest cells that hold ``SHOWN`` of the weight."""
    order = np.argsort(-density, axis=None, kind="stable")
    mass = np.cumsum(density.ravel()[order])
    count = int(np.searchsorted(mass, SHOWN * mass[-1])) + 1
    rows, columns = np.divmod(order[:count], len(density))
    return rows, columns


def _last(density: Array) -> int:
    """The edge after the last bin that holds anything."""
    return int(np.flatnonzero(density)[-1]) + 1 if density.any() else len(density)


def _label(panels: Sequence[Axes], layer: LayerChanges, *, is_first: bool, is_last: bool) -> None:
    distances, changes, flow = panels
    layout.name_row(distances, layer.name, "density (1/px)")
    changes.set_ylabel("change of y (px)")
    flow.set_ylabel("y (px)")
    if is_first:
        changes.set_title(f"moves of {layer.distributions[0].label}")
        flow.set_title("from where to where")
    if is_last:
        for axes, words in zip(panels, ("distance moved (px)", "change of x (px)", "x (px)"), strict=True):
            axes.set_xlabel(words)


def _handles(layers: Sequence[LayerChanges]) -> list[Any]:
    handles: list[Any] = []
    if any(layer.mean_distance for layer in layers):  # else there is no curve and no arrow
        handles += layout.curve_handles([distribution.label for distribution in layers[0].distributions])
        handles.append(Line2D([], [], color=MARK, marker=">", markersize=3, label="mean move of a cell's units"))
    if any(layer.limit is not None for layer in layers):
        handles.append(layout.limit_line())
    return handles
