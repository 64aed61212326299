"""Pages to look at: what is on one, and how that becomes a single HTML file. Knows neither torch nor matplotlib."""

from daukit.page.content import (
    Block,
    Cell,
    Download,
    Drawing,
    Facts,
    Figure,
    Figures,
    Page,
    Section,
    Slider,
    Table,
    Text,
    Timed,
    TimeLine,
)
from daukit.page.rendering import render

__all__ = [
    "Block",
    "Cell",
    "Download",
    "Drawing",
    "Facts",
    "Figure",
    "Figures",
    "Page",
    "Section",
    "Slider",
    "Table",
    "Text",
    "TimeLine",
    "Timed",
    "render",
]
