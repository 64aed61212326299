"""Effective receptive fields as contours (paper, Fig. 8)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from daukit.plots.style import GUIDE, MARK, TEXT_WIDTH, style

COLUMNS = 3
"""Panels in a row when there is one network to show."""

_LETTER = 0.068
"""Width of a title's letter in inches: longer lines are broken."""

CONTOURS = ("#E69F00", "#009E73", "#0072B2", "#3B1F5B")
"""Inner to outer: yellow as in the paper's figure, then ever darker, so that lightness alone tells them apart too."""


@dataclass(frozen=True)
class Panel:
    """One layer's effective receptive field.

    Attributes:
        title: what to write above it; may have several lines.
        influence: (H, W), not negative.
        origin: (y, x) in pixels of ``influence``: where the axes have their zero, and the mark is.
        levels: {share of the influence: influence of the least influential pixel in its contour}, inner contour first.
    """

    title: str
    influence: NDArray[np.float64]
    origin: tuple[float, float]
    levels: dict[float, float]

    def title_lines(self, letters: int) -> list[str]:
        """The title's lines, broken where they are longer than ``letters``."""
        lines = self.title.splitlines()
        return [part for line in lines for part in textwrap.wrap(line, letters, break_on_hyphens=False)]

    def drawn_level(self, level: float) -> float:
        """Half way from the least influential pixel inside to the next outside: the line then runs between the two."""
        outside = self.influence[self.influence < level]
        return (level + float(outside.max(initial=0.0))) / 2

    @property
    def view(self) -> float:
        """Half the side of a square around the origin in which the outer contour fits."""
        rows, columns = np.nonzero(self.influence >= min(self.levels.values()))
        farthest = max(np.abs(rows - self.origin[0]).max(), np.abs(columns - self.origin[1]).max())
        return 1.08 * (float(farthest) + 0.5) + 0.5

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges of the input from the origin: left, right, bottom, top."""
        (height, width), (y, x) = self.influence.shape, self.origin
        return -x - 0.5, width - x - 0.5, height - y - 0.5, -y - 0.5


def plot_receptive_fields(networks: Sequence[Sequence[Panel]], mark: str = "probed position") -> Figure:
    """Draw the contours of every layer around its origin.

    Args:
        networks: the panels of one network or of several with equally many layers. One network fills rows of three;
            several stand side by side, one layer a row, with the same limits in a row.
        mark: what the origins are.
    """
    single = len(networks) == 1
    columns = min(COLUMNS, len(networks[0])) if single else len(networks)
    rows = math.ceil(len(networks[0]) / columns) if single else len(networks[0])
    side = min(TEXT_WIDTH / columns, TEXT_WIDTH / COLUMNS)
    letters = round(side / _LETTER)
    lines = max(len(panel.title_lines(letters)) for panels in networks for panel in panels)
    with style():
        figure = Figure(figsize=(side * columns, (side + 0.14 * lines) * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        places = list(_places(grid, networks))
        for axes, panel, view in places:
            _draw(axes, panel, view, letters)
        for axes in grid[:, 0]:
            axes.set_ylabel("y (input pixels)")
        for i, axes in enumerate(grid.flat):
            if not axes.has_data():
                axes.remove()
            elif i + columns >= rows * columns or not grid.flat[i + columns].has_data():
                axes.set_xlabel("x (input pixels)")
        with_border = any(view > min(map(abs, panel.extent)) for _, panel, view in places)
        handles = _legend(networks[0][0].levels, mark, with_border)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, columns + 1))
    return figure


def _places(grid: Any, networks: Sequence[Sequence[Panel]]) -> Iterator[tuple[Axes, Panel, float]]:
    """Every panel with its axes and the half-width of its view."""
    if len(networks) == 1:
        for axes, panel in zip(grid.flat, networks[0], strict=False):
            yield axes, panel, panel.view
        return
    for row, panels in zip(grid, zip(*networks, strict=True), strict=True):
        view = max(panel.view for panel in panels)
        for axes, panel in zip(row, panels, strict=True):
            yield axes, panel, view


def _draw(axes: Axes, panel: Panel, view: float, letters: int) -> None:
    left, right, bottom, top = panel.extent
    # The square root shows the faint rest; half of the map's range keeps it behind the contours.
    faint = np.sqrt(panel.influence / panel.influence.max())
    axes.imshow(faint, cmap="Greys", vmin=0, vmax=2, extent=panel.extent, interpolation="nearest")
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=GUIDE, linestyle=":"))
    # A ring of zeros closes contours that run into the border.
    padded = np.pad(panel.influence, 1)
    y, x = (np.arange(size) - 1 - zero for size, zero in zip(padded.shape, panel.origin, strict=True))
    for level, color in zip(panel.levels.values(), CONTOURS, strict=False):
        axes.contour(x, y, padded, levels=[panel.drawn_level(level)], colors=[color], linewidths=0.9)
    axes.plot(0, 0, marker="+", color=MARK, markersize=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlim=(-view, view), ylim=(view, -view), aspect="equal")
    axes.set_title("\n".join(panel.title_lines(letters)), parse_math=False)


def _legend(levels: dict[float, float], mark: str, with_border: bool) -> list[Line2D]:
    lines = [
        Line2D([], [], color=color, label=f"{100 * mass:g} % of influence")
        for mass, color in zip(levels, CONTOURS, strict=False)
    ]
    lines.append(Line2D([], [], color=MARK, marker="+", linestyle="", label=mark))
    border = Line2D([], [], color=GUIDE, linestyle=":", label="border of the input")
    return [*lines, border] if with_border else lines
