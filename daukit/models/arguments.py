"""Options that a file, or a person at a shell, may hand to a network's factory: values of its signature's types."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from daukit.limits import MAX_CHANNELS, MAX_UNITS, every, in_short, is_flag, is_none, is_text, number, one_of, whole
from daukit.models import MODELS

_MOST = {"depths": 256, "blocks": 256, "scales": 64, "units": MAX_UNITS, "factors": 64, "aspp_units": MAX_UNITS}
"""The largest integer of an option, where it is not ``MAX_CHANNELS``: networks are built in loops over some."""
_LONGEST = 64
"""Entries of a list, as of channels."""


def check_options(name: str, config: Mapping[str, Any]) -> None:
    """Check the options of daukit's network called ``name`` before it is built; of an unknown one, nothing.

    Raises:
        TypeError: an option is of another type than its factory's signature says, or too large a number or list.
    """
    factory = MODELS.get(name)
    hints = get_type_hints(factory) if factory is not None else {}
    for key, value in config.items():
        if key in hints and not _fits(value, hints[key], _MOST.get(key, MAX_CHANNELS)):
            most = _MOST.get(key, MAX_CHANNELS)
            raise TypeError(f"option {key} of {name} must be {_in_words(hints[key], most)}, got {in_short(value)}")


def _in_words(hint: Any, most: int) -> str:
    """What values of a type are called, as in ``_fits``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(part, most) for part in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is collections.abc.Sequence:
        return f"a list of at most {_LONGEST}, each {_in_words(arguments[0], most)}"
    if origin is collections.abc.Mapping:
        return "names with values"
    words = {
        int: f"an integer from 0 to {most:,}", float: "a number", bool: "true or false", str: "a word",
        types.NoneType: "nothing",
    }  # fmt: skip
    return words.get(hint, "of another type")


def _fits(value: object, hint: Any, most: int) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part, most) for part in arguments)
    if origin is Literal:
        return one_of(*arguments)(value)
    if origin is collections.abc.Sequence:
        return every(lambda part: _fits(part, arguments[0], most))(value) and len(value) <= _LONGEST  # type: ignore[arg-type]
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping) and all(map(is_text, value))
    rules = {int: whole(0, most), float: number(), bool: is_flag, str: is_text, types.NoneType: is_none}
    return rules[hint](value) if hint in rules else True
