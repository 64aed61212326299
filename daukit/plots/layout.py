"""Panels and legends at places given in inches: matplotlib's own layout takes longer than all the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from daukit.plots.style import COLORS, DENSITY, GUIDE, TEXT_WIDTH

MARGIN = 1.06
"""Axes of a square reach this much farther than the limit, so that its box shows, and what lies on it."""

LEFT, RIGHT, TOP, BOTTOM = 0.6, 0.8, 0.4, 0.75
"""Inches around the panels."""

ROW_GAP, TICK_LABELS, AXIS_LABEL, SMALL_GAP = 0.46, 0.42, 0.22, 0.15
_BAR = 0.08

_LEGEND_KEY, _LETTER = 0.5, 0.055
"""Inches of a legend's key with its gaps, and of a letter of its text."""

_WIDE_LETTER = 0.072
"""Inches of a letter of titles and of names beside panels, which are larger."""

_DASHES: tuple[tuple[float, ...], ...] = ((), (3.0, 2.0), (1.0, 1.5), (4.0, 1.5, 1.0, 1.5))
"""Of lines that are drawn over each other, in points: what lies below shows in the gaps. None is a full line."""

_TINT = 0.3
"""Opacity of the area below the first curve."""

_SMALL = 0.8
"""Inches of width below which five ticks are too many."""

_DOWNWARDS = 1.2
"""Inches of height of a panel in a grid of panels."""


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def panel_grid(count: int, width: float, stacked: int = 1) -> tuple[Figure, list[list[Axes]], int]:
    """``count`` stacks of panels in rows, as many beside each other as ``width`` holds.

    Returns:
        The figure, the panels as [level of the stack][number], and how many stand in a row.
    """
    most = 3 if width >= TEXT_WIDTH else 2
    columns = max(1, min(count, most))
    rows = math.ceil(count / columns) * stacked
    side = (width - LEFT) / most - TICK_LABELS
    right, below = side + TICK_LABELS, _DOWNWARDS + ROW_GAP + AXIS_LABEL
    figure = Figure((LEFT + columns * right, TOP + rows * below - ROW_GAP - AXIS_LABEL + BOTTOM))

    def place(level: int, number: int) -> Axes:
        row, column = divmod(number, columns)
        return panel(figure, LEFT + column * right, TOP + (row * stacked + level) * below, side, _DOWNWARDS)

    return figure, [[place(level, number) for number in range(count)] for level in range(stacked)], columns


def color_bar(figure: Figure, norm: Normalize, left: float, top: float, height: float, extend: str) -> None:
    """The scale of a panel of densities, as ``color_scale`` makes it."""
    bar = panel(figure, left, top, _BAR, height)
    scale, ticks = ("square-root scale", 4) if height >= _SMALL else ("√ scale", 2)  # must not reach the next row's
    figure.colorbar(
        ScalarMappable(norm, DENSITY),
        cax=bar,
        label=f"density (1/px²)\n{scale}",
        extend=extend,
        ticks=MaxNLocator(ticks),
    )


def shortened(name: str, letters: int) -> str:
    """The name, or its beginning and its end, where layers of a network differ, if it has more than ``letters``."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 3
    return f"{name[:head]}…{name[head + 1 - letters :]}"


def name_panel(axes: Axes, name: str, units: int | None = None) -> None:
    """The title of a panel of ``panel_grid``, no wider than the panel and the gap beside it."""
    letters = int((_inches(axes)[0] + TICK_LABELS) / _WIDE_LETTER)
    if units is None:
        axes.set_title(shortened(name, letters), parse_math=False)
        return
    kept = f"({units:,} units)"
    title = f"{name} {kept}"
    axes.set_title(title if len(title) <= letters else f"{shortened(name, letters)}\n{kept}", parse_math=False)


def name_row(axes: Axes, name: str, label: str) -> None:
    """The label of a row's first panel with a layer's name before it, no longer than the row is high."""
    letters = int((_inches(axes)[1] + ROW_GAP) / _WIDE_LETTER)
    axes.set_ylabel(f"{shortened(name, letters)}\n{label}", parse_math=False)


def _inches(axes: Axes) -> tuple[float, float]:
    """Width and height of a panel."""
    box, dpi = axes.bbox, axes.get_figure(root=True).dpi  # type: ignore[union-attr]  # panels have one
    return box.width / dpi, box.height / dpi


def color_scale(densities: Sequence[NDArray[np.float64]]) -> tuple[Normalize, Literal["neither", "max"]]:
    """One scale for several panels, and whether values exceed it.

    It ends where the panel of the lowest peak ends, so that a spike in one panel leaves the others legible; the square
    root keeps the rest of a panel legible beside a spike of its own.
    """
    peaks = [float(density.max()) or 1.0 for density in densities]
    return PowerNorm(0.5, 0, min(peaks)), "max" if max(peaks) > min(peaks) else "neither"


def draw_square(axes: Axes, density: NDArray[np.float64], half: float, norm: Normalize, view: float) -> None:
    """A density over ``[-half, half]^2``, y downwards as in images, seen as far as ``view``."""
    axes.imshow(density, DENSITY, norm, extent=(-half, half, half, -half), interpolation="nearest")
    axes.set_xlim(-MARGIN * view, MARGIN * view)
    axes.set_ylim(MARGIN * view, -MARGIN * view)
    is_small = axes.bbox.width < _SMALL * axes.figure.dpi
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(2, steps=[1, 2, 4, 5, 10]) if is_small else pixels())
    axes.spines[:].set_visible(False)


def curve_looks(count: int) -> list[dict[str, Any]]:
    """Styles of curves that often coincide, as those of nested selections do, so that all of them can be seen.

    The first is an area, the others are lines: each is narrower than the one below it and, from the second line on,
    dashed, so that the one below shows beside it and in its gaps.
    """
    looks: list[dict[str, Any]] = [{"fill": True, "facecolor": (COLORS[0], _TINT), "edgecolor": COLORS[0], "lw": 0.8}]
    widths = np.linspace(0.9, 1.8, max(count - 1, 2))[::-1].tolist()
    for width, color, dashes in zip(widths, cycle(COLORS[1:] + COLORS[:1]), cycle(_DASHES), strict=False):
        style = (0, tuple(part / width for part in dashes)) if dashes else "-"  # matplotlib counts in widths
        looks.append({"edgecolor": color, "lw": width, "linestyle": style})
    return looks[:count]


def draw_curves(axes: Axes, densities: Sequence[NDArray[np.float64]], edges: NDArray[np.float64]) -> None:
    """Densities (bins,) over the same ``edges`` (bins + 1,)."""
    for density, look in zip(densities, curve_looks(len(densities)), strict=True):
        axes.stairs(density, edges, **look)


def draw_limit(axes: Axes, limit: tuple[float, float] | None) -> None:
    """The box of displacements that the limit (y, x) allows, in a plane."""
    if limit is not None:
        y, x = limit
        axes.add_patch(Rectangle((-x, -y), 2 * x, 2 * y, fill=False, edgecolor=GUIDE, linestyle=":", linewidth=0.8))


def pixels() -> MaxNLocator:
    """Ticks at round numbers of pixels."""
    return MaxNLocator(5, steps=[1, 2, 4, 10])


def say_why_empty(axes: Axes, units: int) -> None:
    """Write into the axes why nothing is drawn."""
    say(axes, "all weights\nare zero" if units else "no units")


def say(axes: Axes, words: str) -> None:
    """Write into the middle of the axes."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=GUIDE, bbox=box)


def curve_handles(labels: Sequence[str]) -> list[Line2D | Patch]:
    """The legend's entries of the curves, with their colours and, for prints in grey, their widths and dashes."""
    area, *lines = zip(labels, curve_looks(len(labels)), strict=True)
    handles: list[Line2D | Patch] = [Patch(label=area[0], **area[1])]
    for label, look in lines:
        handles.append(Line2D([], [], label=label, color=look["edgecolor"], lw=look["lw"], linestyle=look["linestyle"]))
    return handles


def limit_line() -> Line2D:
    """The legend's entry of the limit, the box in a plane."""
    return Line2D([], [], color=GUIDE, linestyle=":", linewidth=0.8, label="limit per axis")


def draw_legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend below all panels."""
    if handles:
        columns = entries_in_line([str(handle.get_label()) for handle in handles], figure.get_figwidth())
        figure.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.3 / figure.get_figheight()), ncols=columns
        )


def entries_in_line(labels: Sequence[str], width: float) -> int:
    """Number of entries of a legend that ``width`` inches hold side by side: all, or as many as in equal columns."""
    entries = [_LEGEND_KEY + _LETTER * len(label) for label in labels]
    return max(1, len(labels) if sum(entries) <= width else int(width / max(entries)))


def letters_of_entry(width: float) -> int:
    """Number of letters of the longest label that a legend of ``width`` inches holds."""
    return int((width - _LEGEND_KEY) / _LETTER)
