"""The look of the figures: sizes for a page of a paper, and colours that colour-blind readers tell apart."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style

TEXT_WIDTH = 6.9
"""Width of a page's text in inches (two columns)."""

COLUMN_WIDTH = 3.5
"""Width of one of the columns."""

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Lines, in the order of use: the palette of Okabe and Ito (2008), from the paper's blue, orange and green on."""

MARK = "#C8102E"
"""Points that the reader must find, as the paper's red dots."""

PIXEL = COLORS[5]
"""Whole pixels at which units read."""

GUIDE = "#555555"
"""Limits, axes and other lines that are no data."""

BAND = "#E8E8E8"
"""Areas that are no data, behind the lines."""

DENSITY = "Blues"
"""Colour map of densities: white is nothing, and lightness alone carries the value."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure looks the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GUIDE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "patch.linewidth": 1.1,
    "svg.hashsalt": "daukit",  # the names of an SVG's parts repeat, and with them its bytes
}


def style(*, for_page: bool = False) -> AbstractContextManager[None]:
    """A context to build and to save figures in: matplotlib's defaults whatever the user's configuration, ours on top.

    Saving needs it too: only then are ticks made and files encoded, by the settings that hold there.

    Args:
        for_page: whether an SVG is a part of a page: its texts are texts, in the reader's fonts, not outlines of
            letters, and nothing is behind it.
    """
    page: dict[str, Any] = {"svg.fonttype": "none", "savefig.facecolor": "none", "axes.facecolor": "none"}
    return matplotlib.style.context(["default", _SETTINGS, page if for_page else {}])
