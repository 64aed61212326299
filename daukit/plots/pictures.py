"""Draw what networks make of pictures, beside the truth (paper, Fig. 9 and 11)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from daukit.plots.layout import entries_in_line, letters_of_entry, panel, shortened
from daukit.plots.palette import Color
from daukit.plots.style import GUIDE, MARK, TEXT_WIDTH, style

_LABEL, _GAP, _BLOCK_GAP = 0.2, 0.06, 0.16
"""Inches of the labels beside rows, between panels, and between blocks of rows."""

_LINE, _LETTER = 0.125, 0.056
"""Inches of a line of text below a panel, and of one of its letters."""

_LEGEND_LINE = 0.149

_FEW = 6
"""So many entries of the legend fit below a few pictures; with more, the figure is as wide as the page."""

_TALLEST = 2.4
"""Inches of height of a panel, where few pictures would make it higher."""


@dataclass(frozen=True)
class Panel:
    """One picture in the figure.

    Attributes:
        pixels: (H, W, 3) uint8.
        lines: of text below it.
        wrong: numbers of those lines that are wrong answers.
        exact: pixels are labels, which must not be mixed where the panel has fewer.
    """

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...] = ()
    wrong: frozenset[int] = frozenset()
    exact: bool = False


def plot_pictures(
    columns: Sequence[Sequence[Panel]],
    rows: Sequence[str],
    legend: Sequence[tuple[str, Color]] = (),
    *,
    most: int = 4,
) -> Figure:
    """Draw a column per picture: the picture and what is made of it, below each other.

    Args:
        columns: the panels of each picture, one for every row. All of a column have the same proportions, and all of a
            row as many lines of text.
        rows: names of the rows.
        legend: names of classes and their colours.
        most: columns side by side. More pictures go into further blocks of rows.
    """
    blocks = math.ceil(len(columns) / most)
    across = math.ceil(len(columns) / blocks)
    parts = [columns[start : start + across] for start in range(0, len(columns), across)]
    texts = [_LINE * max(len(column[i].lines) for column in columns) for i in range(len(rows))]
    heights = _heights(parts)
    of_block = [len(rows) * (height + _GAP) + sum(texts) for height in heights]
    drawn = max(_width(part, height) for part, height in zip(parts, heights, strict=True))
    width = drawn if len(legend) <= _FEW else TEXT_WIDTH
    names = [shortened(name, letters_of_entry(width)) for name, _ in legend]
    in_line = entries_in_line(names, width) if names else 1
    below = _LEGEND_LINE * math.ceil(len(names) / in_line)
    with style():
        figure = Figure((width, sum(of_block) + _BLOCK_GAP * (blocks - 1) + below + _GAP))
        top = 0.0
        for part, height, block in zip(parts, heights, of_block, strict=True):
            _draw_block(figure, part, rows, texts, ((width - drawn) / 2, top, height))
            top += block + _BLOCK_GAP
        if names:
            colors = [to_hex((red / 255, green / 255, blue / 255)) for _, (red, green, blue) in legend]
            handles = [Patch(facecolor=color, edgecolor=GUIDE, linewidth=0.4) for color in colors]
            shown = figure.legend(handles, names, loc="lower center", ncols=in_line, bbox_to_anchor=(0.5, 0))
            for text in shown.get_texts():
                text.set_parse_math(False)
    return figure


def _heights(blocks: Sequence[Sequence[Sequence[Panel]]]) -> list[float]:
    """Inches of the panels of each block: as high as the page's width allows, and not higher than in the one before."""
    heights = [_TALLEST]
    for columns in blocks:
        room = TEXT_WIDTH - _LABEL - _GAP * len(columns)
        heights.append(min(heights[-1], room / sum(_proportion(column[0]) for column in columns)))
    return heights[1:]


def _width(columns: Sequence[Sequence[Panel]], height: float) -> float:
    return _LABEL + sum(_proportion(column[0]) * height + _GAP for column in columns)


def _draw_block(
    figure: Figure,
    columns: Sequence[Sequence[Panel]],
    rows: Sequence[str],
    texts: Sequence[float],
    place: tuple[float, float, float],
) -> None:
    """Rows of panels with ``texts`` inches of text below. ``place``: left, top and a panel's height, in inches."""
    start, top, height = place
    for i, (name, text) in enumerate(zip(rows, texts, strict=True)):
        left = start + _LABEL
        _name_row(figure, name, (start + 0.4 * _LABEL, top + height / 2), int(height / _LETTER))
        for column in columns:
            width = _proportion(column[0]) * height
            _draw(panel(figure, left, top, width, height), column[i], letters=int((width + _GAP) / _LETTER))
            left += width + _GAP
        top += height + _GAP + text


def _draw(axes: Axes, picture: Panel, letters: int) -> None:
    axes.imshow(picture.pixels, interpolation="nearest" if picture.exact else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, linewidth=0.4, color=GUIDE)
    for i, line in enumerate(picture.lines):
        axes.annotate(
            shortened(line, letters), (0.5, 0), (0, -2 - 72 * _LINE * i), xycoords="axes fraction",
            textcoords="offset points", ha="center", va="top", fontsize=7, parse_math=False,
            color=MARK if i in picture.wrong else "black",
        )  # fmt: skip


def _name_row(figure: Figure, name: str, middle: tuple[float, float], letters: int) -> None:
    (across, down), (x, y) = figure.get_size_inches(), middle
    figure.text(
        x / across, 1 - y / down, shortened(name, max(letters, 8)), rotation=90, ha="center",
        va="center", parse_math=False,
    )  # fmt: skip


def _proportion(picture: Panel) -> float:
    """Width by height, of pictures that are not drawn as a line."""
    height, width = picture.pixels.shape[:2]
    return float(min(max(width / height, 0.2), 5.0))
