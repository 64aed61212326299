"""The values of ``daukit convert``'s options for files of other libraries, which may differ from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

Value = TypeVar("Value")


def per_layer(
    items: Sequence[str] | None, option: str, parse: Callable[[str], Value], kind: str
) -> dict[str, Value] | None:
    """Parse ``LAYER=VALUE`` items, and a ``VALUE`` for all other layers as ``"*"``; a wrong one is a usage error."""
    values = {}
    for item in items or ():
        name, _, text = item.rpartition("=")
        try:
            values[name or "*"] = parse(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {kind}", param_hint=option) from None
    return values or None


def window_size(text: str) -> tuple[int, int]:
    """Parse ``9`` or ``9,5`` as (height, width); anything else is a ``ValueError``."""
    sides = [count(part) for part in text.split(",")]
    if len(sides) > 2:
        raise ValueError
    return sides[0], sides[-1]


def count(text: str) -> int:
    """Parse a whole number above 0; anything else is a ``ValueError``."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value
