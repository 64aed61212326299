"""Displacements of a network's units: distances to the centre (the paper's Fig. 6) and 2-D densities (its Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from daukit.plots.style import COLORS, DENSITY, GUIDE, MARK, TEXT_WIDTH, style

_ACROSS = 3
"""Panels across a page of text."""

_NARROWEST = 1.15
"""Inches that a panel needs for its title; many weight filters make a figure wider than the page."""

_MARGIN = 1.06
"""Axes reach this much farther than the limit, so that its box shows, and what lies on it."""

# Hollow, so that the units that stayed at an initialisation point can be seen within its dot.
_DOT: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "none", "color": MARK, "linestyle": ""}

# Inches around panels. The layout is ours because matplotlib's own takes longer than all the statistics.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.6, 0.55, 0.4, 0.75
_ROW_GAP, _TICK_LABELS, _AXIS_LABEL, _SMALL_GAP, _LEGEND_ENTRY = 0.46, 0.3, 0.22, 0.1, 1.3


class Distribution(Protocol):
    """What one weight filter keeps of one layer: how many units, and their densities per pixel and per square pixel."""

    @property
    def label(self) -> str: ...
    @property
    def units(self) -> int: ...
    @property
    def density(self) -> NDArray[np.float64]: ...  # (distance bins,)
    @property
    def density_2d(self) -> NDArray[np.float64]: ...  # (bins, bins), rows y and columns x


class Layer(Protocol):
    """What is drawn of one layer, in pixels; ``daukit.offsets.LayerDistributions`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def units(self) -> int: ...
    @property
    def mean_distance(self) -> float | None: ...  # None: no units, or all of weight zero
    @property
    def limit(self) -> tuple[float, float] | None: ...  # (y, x)
    @property
    def points(self) -> NDArray[np.float64] | None: ...  # (2, points), rows y and x
    @property
    def distance_edges(self) -> NDArray[np.float64]: ...  # (distance bins + 1,)
    @property
    def edges(self) -> NDArray[np.float64]: ...  # (bins + 1,), of both axes
    @property
    def distributions(self) -> Sequence[Distribution]: ...  # one per weight filter


def plot_displacements(layers: Sequence[Layer], kind: Literal["1d", "2d", "both"] = "both") -> Figure:
    """Draw the distributions of one network.

    Args:
        layers: from ``daukit.displacement_distributions``, in the order to draw them.
        kind: ``"1d"``, a panel per layer and a line per weight filter; ``"2d"``, a row per layer and a column per
            weight filter; ``"both"``, the same with the layer's 1-D panel as the first column.
    """
    with style():
        return _distances(layers) if kind == "1d" else _densities(layers, with_distances=kind == "both")


def _distances(layers: Sequence[Layer]) -> Figure:
    columns = min(len(layers), _ACROSS)
    rows = math.ceil(len(layers) / columns)
    width, height = (TEXT_WIDTH - _LEFT) / _ACROSS - _TICK_LABELS, 1.2
    right, below = width + _TICK_LABELS, height + _ROW_GAP + _AXIS_LABEL
    figure = Figure((_LEFT + columns * right, _TOP + rows * below - _ROW_GAP - _AXIS_LABEL + _BOTTOM))
    for i, layer in enumerate(layers):
        row, column = divmod(i, columns)
        axes = _panel(figure, _LEFT + column * right, _TOP + row * below, width, height)
        _draw_distances(axes, layer)
        axes.set_title(f"{layer.name} ({layer.units:,} units)", parse_math=False)
        axes.set_ylabel("density (1/px)" if column == 0 else "")
        axes.set_xlabel("distance to centre (px)" if i + columns >= len(layers) else "")
    _draw_legend(figure, layers, lines=True)
    return figure


def _densities(layers: Sequence[Layer], *, with_distances: bool) -> Figure:
    filters = len(layers[0].distributions)
    first = _LEFT + (_TICK_LABELS + _AXIS_LABEL) * with_distances  # left edge of the densities, but for the 1-D panel
    room = TEXT_WIDTH - first - _RIGHT - _SMALL_GAP * filters
    side = max(room / max(filters + with_distances, _ACROSS), _NARROWEST)
    first += side * with_distances
    right, below = side + _SMALL_GAP, side + _ROW_GAP
    figure = Figure((first + filters * right + _RIGHT, _TOP + len(layers) * below - _ROW_GAP + _BOTTOM))
    for i, layer in enumerate(layers):
        top, is_last = _TOP + i * below, i == len(layers) - 1
        if with_distances:
            axes = _panel(figure, _LEFT, top, side, side)
            _draw_distances(axes, layer)
            axes.set_ylabel(f"{layer.name}\ndensity (1/px)", parse_math=False)
            axes.set_xlabel("distance to centre (px)" if is_last else "")
        norm, extend = _color_scale(layer)
        for j, distribution in enumerate(layer.distributions):
            axes = _panel(figure, first + j * right, top, side, side)
            _draw_density(axes, layer, distribution, norm)
            axes.tick_params(labelleft=j == 0)
            if j == 0:
                axes.set_ylabel("y (px)" if with_distances else f"{layer.name}\ny (px)", parse_math=False)
            axes.set_xlabel("x (px)" if is_last else "")
            kept = f"n = {distribution.units:,}"
            axes.set_title(f"{distribution.label}\n{kept}" if i == 0 else kept)
        if layer.mean_distance is not None:
            bar = _panel(figure, first + filters * right, top, 0.08, side)
            figure.colorbar(ScalarMappable(norm, DENSITY), cax=bar, label="density (1/px²)", extend=extend)
    _draw_legend(figure, layers, lines=with_distances)
    return figure


def _panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _draw_distances(axes: Axes, layer: Layer) -> None:
    # Each line is narrower than the one below it: where they coincide, as they often do, all can be seen.
    widths = np.linspace(0.8, 2.0, len(layer.distributions))[::-1]
    for distribution, color, width in zip(layer.distributions, cycle(COLORS), widths, strict=False):
        if layer.mean_distance is not None:
            axes.stairs(distribution.density, layer.distance_edges, color=color, linewidth=width)
    if layer.limit is not None:
        for limit in sorted(set(layer.limit)):
            axes.axvline(limit, color=GUIDE, linestyle=":", linewidth=0.8, zorder=0)
    if layer.points is not None:
        radii = np.unique(np.hypot(*layer.points).round(9))
        axes.plot(radii, np.zeros_like(radii), **_DOT, clip_on=False, zorder=3)
    axes.xaxis.set_major_locator(_pixels())
    axes.set_xlim(0, layer.distance_edges[-1])
    axes.set_ylim(0)
    if layer.mean_distance is None:
        axes.set_yticks([])
        _say_why_empty(axes, layer)


def _draw_density(axes: Axes, layer: Layer, distribution: Distribution, norm: Normalize) -> None:
    half = layer.edges[-1]
    extent = (-half, half, half, -half)  # y grows downwards, as in images
    axes.imshow(distribution.density_2d, DENSITY, norm, extent=extent, interpolation="nearest")
    if layer.limit is not None:
        y, x = layer.limit
        axes.add_patch(Rectangle((-x, -y), 2 * x, 2 * y, fill=False, edgecolor=GUIDE, linestyle=":", linewidth=0.8))
    if layer.points is not None:
        axes.plot(layer.points[1], layer.points[0], **_DOT)
    axes.set_xlim(-_MARGIN * half, _MARGIN * half)
    axes.set_ylim(_MARGIN * half, -_MARGIN * half)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_pixels())
    axes.spines[:].set_visible(False)
    if layer.mean_distance is None:
        _say_why_empty(axes, layer)


def _color_scale(layer: Layer) -> tuple[Normalize, Literal["neither", "max"]]:
    """One scale for a layer's panels, and whether values exceed it.

    It ends where the panel of the lowest peak ends, so that a spike in one panel leaves the others legible; the square
    root keeps the rest of a panel legible beside a spike of its own.
    """
    peaks = [float(distribution.density_2d.max()) or 1.0 for distribution in layer.distributions]
    return PowerNorm(0.5, 0, min(peaks)), "max" if max(peaks) > min(peaks) else "neither"


def _pixels() -> MaxNLocator:
    return MaxNLocator(5, steps=[1, 2, 4, 10])


def _say_why_empty(axes: Axes, layer: Layer) -> None:
    reason = "all weights\nare zero" if layer.units else "no units"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=GUIDE, bbox=box)


def _draw_legend(figure: Figure, layers: Sequence[Layer], *, lines: bool) -> None:
    handles = []
    if lines:
        for distribution, color in zip(layers[0].distributions, cycle(COLORS), strict=False):
            handles.append(Line2D([], [], color=color, linewidth=1.6, label=distribution.label))
    if any(layer.points is not None for layer in layers):
        handles.append(Line2D([], [], **_DOT, label="initialisation"))
    if any(layer.limit is not None for layer in layers):
        handles.append(Line2D([], [], color=GUIDE, linestyle=":", linewidth=0.8, label="displacement limit"))
    if handles:
        columns = max(1, int(figure.get_figwidth() / _LEGEND_ENTRY))
        figure.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.3 / figure.get_figheight()), ncols=columns
        )
