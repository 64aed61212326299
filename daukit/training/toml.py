"""TOML: text to tables of values that JSON has too, and back."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_INTEGERS = range(-(2**63), 2**63)
_MAX_DEPTH = 16


def parse_toml(text: str) -> dict[str, Any]:
    """Read tables.

    Raises:
        ValueError: it is no TOML, nests too deeply, or holds a date, a number that is not finite, or an integer of more
            than 64 bits.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH} levels") from None
    _check(tables, _MAX_DEPTH)
    return tables


def toml_text(tables: Mapping[str, Any]) -> str:
    """Tables as text that ``parse_toml`` reads, values before the tables that are inside of each."""
    return "\n".join(_lines(tables, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    inside = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    own = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in inside]
    heading = ["", f"[{'.'.join(map(_key, path))}]"] if path and (own or not inside) else []
    return heading + own + [line for key, value in inside.items() for line in _lines(value, (*path, key))]


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):  # in a list
        return f"{{{', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())}}}"
    # JSON's texts, flags and numbers are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _check(value: object, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check(part, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that can be used")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise ValueError("it holds an integer of more than 64 bits")
    elif not isinstance(value, str | int | float):
        raise ValueError(f"{value} is a date, and nothing here takes one")
