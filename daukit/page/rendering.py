"""A page becomes one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from importlib.resources import files
from itertools import count
from typing import Any

from daukit.page.content import Download, Drawing, Page
from daukit.page.svg import inline
from daukit.texts import visible

NOTHING = "\N{EN DASH}"
"""What stands for no value; the page's script knows it."""


def render(page: Page) -> str:
    """The HTML of a page. Every text in it is escaped; the only script that may run is the page's own."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    style, script, template = (_read(name) for name in ("page.css", "page.js", "page.html"))
    environment = Environment(
        loader=DictLoader({"page.html": template}), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    numbers = count(1)
    environment.filters |= {
        "number": _number, "packed": _packed, "json": json.dumps, "kind": lambda block: type(block).__name__,
        "drawn": lambda drawing: _drawn(drawing, f"d{next(numbers)}"),
    }  # fmt: skip
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text: str = environment.get_template("page.html").render(
        page=_seen(page), style=style, script=script, digest=digest
    )
    return text


def _read(name: str) -> str:
    return (files("daukit.page") / name).read_text(encoding="utf-8")


def _seen(value: Any) -> Any:
    """The same with every text ``visible``, but for what is not text to read: drawings, and numbers to take away."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list | tuple):
        return [_seen(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        kept = {Drawing: "svg", Download: "text"}.get(type(value))
        texts = {field.name: getattr(value, field.name) for field in fields(value) if field.name != kept}
        return replace(value, **{name: _seen(item) for name, item in texts.items()})
    return value


def _drawn(drawing: Drawing, prefix: str) -> Any:
    from markupsafe import Markup

    return Markup(inline(drawing.svg, prefix, drawing.finding))  # a tree of elements, written anew: it is well-formed


def _number(cell: object) -> str:
    """A cell in words."""
    if cell is None:
        return NOTHING
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _packed(text: str) -> str:
    """A link that holds a text itself, compressed; the page's script hands it out as it was."""
    packed = gzip.compress(text.encode(), mtime=0)
    return f"data:application/gzip;base64,{base64.b64encode(packed).decode()}"
