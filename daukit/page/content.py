"""What is on a page: sections of texts, facts, tables, figures and a time line. All texts are plain, none is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | float | None
"""A number is sorted as one; None is a dash."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Facts:
    """Names with a value each."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Download:
    """Numbers to take away.

    Attributes:
        name: of the file.
        text: its content.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Table:
    """A table; the cells of its first column name its rows.

    Attributes:
        caption: what it is about.
        columns: headings.
        rows: a cell for each of them.
        csv: the same numbers, with all digits.
        note: what the headings mean.
        sorts: whether its rows can be put in another order.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    csv: Download | None = None
    note: str = ""
    sorts: bool = True


@dataclass(frozen=True)
class Drawing:
    """A drawing.

    Attributes:
        svg: an SVG document.
        finding: what it shows, for those who do not see it.
        variant: the position of the section's switch at which it is seen; None: at all of them.
    """

    svg: str
    finding: str
    variant: str | None = None


@dataclass(frozen=True)
class Figure:
    """Drawings below a title.

    Attributes:
        title: what they are of.
        caption: what they show, below them.
        drawings: those that stand beside each other, or take each other's place.
        name: of the files that they are saved as, without a suffix.
        wide: whether it takes the page's width.
    """

    title: str
    caption: str
    drawings: Sequence[Drawing]
    name: str
    wide: bool = False


@dataclass(frozen=True)
class Figures:
    """Figures beside each other.

    Attributes:
        figures: one a layer, mostly.
        switch: what the switch is called; "" without one.
        variants: its positions, the first of which it has.
        csv: the numbers behind all of them.
    """

    figures: Sequence[Figure]
    switch: str = ""
    variants: Sequence[str] = ()
    csv: Download | None = None


@dataclass(frozen=True)
class Slider:
    """Figures whose curves a slider chooses.

    Attributes:
        label: what it chooses.
        positions: its positions in words.
        start: the position it has.
        figures: their drawings have groups ``choice-0``, ``choice-1`` and so on, of which it shows one, and groups
            ``choices-0`` and so on, which are shown without it.
        readings: for every position, a sentence for each of the figures.
        csv: the numbers behind all of them.
    """

    label: str
    positions: Sequence[str]
    start: int
    figures: Sequence[Figure]
    readings: Sequence[Sequence[str]]
    csv: Download | None = None


@dataclass(frozen=True)
class Timed:
    """An entry of a time line.

    Attributes:
        title: what was done.
        date: when, as text.
        entries: names with a value each.
    """

    title: str
    date: str
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class TimeLine:
    """What was done one after the other."""

    entries: Sequence[Timed]


Block = Text | Facts | Table | Figures | Slider | TimeLine


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: its name in links.
        title: its heading.
        blocks: what it has.
    """

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: of the document.
        subtitle: a line below it.
        sections: its parts.
        footer: a line at its end.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str
