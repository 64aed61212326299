"""SVG documents become parts of a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_POINTS_PER_INCH = 72


def inline(document: str, prefix: str, words: str) -> str:
    """An SVG document as a part of a page.

    Args:
        document: as matplotlib writes it.
        prefix: put before all names in it, which are no other drawing's then.
        words: what it shows, for those who do not see it.
    """
    root = ElementTree.fromstring(document)
    for element in root.iter():
        _rename(element, prefix)
    for left_out in [child for child in root if child.tag == f"{{{_SVG}}}metadata"]:
        root.remove(left_out)
    for parent in list(root.iter(f"{{{_SVG}}}defs")):
        for style in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(style)  # it would hold for the whole page; here is what it says
    root.set("stroke-linejoin", "round")
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("style", f"max-width:{width / _POINTS_PER_INCH:.3f}in")  # it takes the room that its place has, up to this
    root.set("role", "img")
    title = ElementTree.Element(f"{{{_SVG}}}title", {"id": f"{prefix}-words"})
    title.text = words
    root.insert(0, title)
    root.set("aria-labelledby", f"{prefix}-words")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _rename(element: ElementTree.Element, prefix: str) -> None:
    """Put ``prefix`` before the element's name and the names that it refers to."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{prefix}-{value}")
        elif value.startswith("#") and key in ("href", f"{{{_XLINK}}}href"):
            element.set(key, f"#{prefix}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, re.sub(r"url\(#", f"url(#{prefix}-", value))
