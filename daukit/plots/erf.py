"""Effective receptive fields as contours (paper, Fig. 8)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from daukit.plots.style import GUIDE, MARK, TEXT_WIDTH, style

_SMALL = 1.9
"""Inches of a panel and its labels below which five ticks are too many, and titles smaller."""

_TICKS = 0.35
"""Inches by which the panel itself is narrower."""

_LEGEND_ENTRY = 1.5
"""Inches that an entry of the legend takes."""

GREYS = LinearSegmentedColormap.from_list("influence", ("#FFFFFF", "#B8B8B8"))
"""Stays behind the contours; lightness alone carries the value."""

STYLES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (4, 1.2, 1, 1.2)), (0, (1, 1)))
"""Inner to outer, for prints in grey: solid, dashed, dash-dotted, dotted."""

CONTOURS = ("#D55E00", "#00805E", "#00558C", "#3B1F5B")
"""Inner to outer: an orange near the paper's figure, then ever darker."""


@dataclass(frozen=True)
class Panel:
    """One layer's effective receptive field in the figure.

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


def plot_receptive_fields(
    networks: Sequence[Sequence[Panel]], mark: str = "probed position", *, width: float = TEXT_WIDTH
) -> Figure:
    """Draw the contours of every layer around its origin.

    Args:
        networks: the panels of one network or of several with equally many layers. One network fills rows of three, or
            two where there is less than a page's width; several stand side by side, one layer a row, with the same
            limits in a row.
        mark: what the origins are called in the legend.
        width: inches.
    """
    single = len(networks) == 1
    most = 3 if width >= TEXT_WIDTH else 2
    columns = min(most, len(networks[0])) if single else len(networks)
    rows = math.ceil(len(networks[0]) / columns) if single else len(networks[0])
    side = min(width / columns, TEXT_WIDTH / 3)
    size, letter = (8.0, 0.06) if side >= _SMALL else (7.0, 0.0525)  # points, and the inches that a letter takes
    letters = math.floor((side - _TICKS) / letter)
    lines = max(len(panel.title_lines(letters)) for panels in networks for panel in panels)
    with style():
        # Inches: a row's panels, narrower than their share by tick labels, and titles; ticks, bar and legend below.
        height = (side + 0.05 + 0.14 * lines) * rows + 1.0
        figure = Figure(figsize=(side * columns, height), layout=ConstrainedLayoutEngine(h_pad=0.08))
        grid = figure.subplots(rows, columns, squeeze=False)
        places = list(_places(grid, networks))
        for axes, panel, view in places:
            draw_field(axes, panel, view, ticks=5 if side >= _SMALL else 3)
            axes.set_title("\n".join(panel.title_lines(letters)), parse_math=False, fontsize=size)
        for axes in grid[:, 0]:
            axes.set_ylabel("y (input pixels)")
        for i, axes in enumerate(grid.flat):
            if not axes.has_data():
                axes.remove()
            elif i + columns >= rows * columns or not grid.flat[i + columns].has_data():
                axes.set_xlabel("x (input pixels)")
        with_border = any(view > min(map(abs, panel.extent)) for _, panel, view in places)
        handles = _legend(networks[0][0].levels, mark, with_border)
        legend_rows = math.ceil(len(handles) / max(1, math.floor(side * columns / _LEGEND_ENTRY)))
        in_row = math.ceil(len(handles) / legend_rows)
        figure.legend(handles=handles, loc="outside lower center", ncols=in_row, handlelength=3)
        _colour_bar(figure, [axes for axes, _, _ in places])
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


def draw_field(axes: Axes, panel: Panel, view: float, *, ticks: int) -> Sequence[ContourSet]:
    """Draw a field, as far as ``view`` from its origin; return its contours, inner to outer."""
    left, right, bottom, top = panel.extent
    share = panel.influence / panel.influence.max()
    axes.imshow(share, cmap=GREYS, norm=_scale(), extent=panel.extent, interpolation="nearest")
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=GUIDE, linestyle=":"))
    # A ring of zeros closes contours that run into the border.
    padded = np.pad(panel.influence, 1)
    y, x = (np.arange(size) - 1 - zero for size, zero in zip(padded.shape, panel.origin, strict=True))
    contours = [
        axes.contour(x, y, padded, levels=[panel.drawn_level(level)], colors=[color], linestyles=[line], linewidths=1.0)
        for level, color, line in zip(panel.levels.values(), CONTOURS, STYLES, strict=False)
    ]
    axes.plot(0, 0, marker="+", color=MARK, markersize=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlim=(-view, view), ylim=(view, -view), aspect="equal")
    return contours


def _scale() -> PowerNorm:
    """The square root shows the faint rest."""
    return PowerNorm(0.5, 0, 1)


def _colour_bar(figure: Figure, panels: Sequence[Axes]) -> None:
    width = figure.get_size_inches()[0]
    bar = figure.colorbar(
        ScalarMappable(_scale(), GREYS), ax=panels, location="bottom", shrink=min(1, 2.2 / width), aspect=22, pad=0.02
    )
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "0.05", "0.2", "0.5", "1"])
    bar.set_label("grey: influence as a share of the panel's largest,\non a square-root scale")
    bar.outline.set_linewidth(0.6)


def _legend(levels: dict[float, float], mark: str, with_border: bool) -> list[Line2D]:
    lines = [
        Line2D([], [], color=color, linestyle=line, label=f"{100 * mass:g} % of influence")
        for mass, color, line in zip(levels, CONTOURS, STYLES, strict=False)
    ]
    lines.append(Line2D([], [], color=MARK, marker="+", linestyle="", label=mark))
    border = Line2D([], [], color=GUIDE, linestyle=":", label="border of the input")
    return [*lines, border] if with_border else lines
