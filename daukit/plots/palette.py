"""Colours of classes, in figures and in masks."""

from __future__ import annotations

Color = tuple[int, int, int]
"""Red, green and blue, each within [0, 255]."""

IGNORED: Color = (255, 255, 255)
"""Pixels without a class, in figures: no class is white."""

# The palette of Okabe and Ito (2008). Each further colour is as far as it can be from all before it, and from white,
# in CIELAB, as the eye sees them and as it does without its red or its green cones (Machado et al., 2009); none of them
# is darker than L = 27 or lighter than 88. The nearest two are 20 apart.
_FAR_APART = (
    "0072B2 E69F00 009E73 CC79A7 56B4E9 D55E00 F0E442 000000 0000FF 663311 AAEE99 7766FF 663355 4422AA EE1155 FFAABB "
    "CCAA55 771177 6699FF CCDDFF"
).split()


def class_colors(count: int) -> list[Color]:
    """The colours of ``count`` classes.

    Twenty-one classes have the colours of PASCAL VOC, as everybody knows them; so have more than twenty, of which no
    colours could be told apart by all readers. Fewer have colours that colour-blind readers tell apart.
    """
    if count > len(_FAR_APART):
        return [_voc_color(i) for i in range(count)]
    return [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in _FAR_APART[:count]]


def _voc_color(number: int) -> Color:
    """The bits of the number, three at a time from the lowest, are the bits of red, green and blue from the highest."""
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red |= (number & 1) << bit
        green |= (number >> 1 & 1) << bit
        blue |= (number >> 2 & 1) << bit
        number >>= 3
    return red, green, blue
