"""Bounds on values that come from outside: one table for headers, modules, options and inputs.

The bounds lie far beyond any real use. They keep sizes in damaged or hostile files from being multiplied, looped over
or allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Check = Callable[[object], bool]
"""True for a value that may enter."""

MAX_CHANNELS = 2**20
MAX_FEATURES = 2**24
"""Inputs and outputs of a linear layer."""
MAX_UNITS = 100_000
"""Units per pair of channels."""
MAX_SIZE = 2**16
"""Pixels along an axis: of images, windows, kernels, strides and dilations."""
MAX_DISPLACEMENT = 1e6
"""Of ``max_displacement``, in pixels."""
SIGMA_RANGE = (1e-3, 1e3)
"""Of any sigma, in pixels: a narrower one is no blur, a wider one takes forever."""
MAX_NUMBER = 1e9
"""Of numbers that have no bounds of their own."""


def is_text(value: object) -> bool:
    """A string."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """True or False."""
    return isinstance(value, bool)


def is_object(value: object) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def whole(low: int, high: int) -> Check:
    """An integer within [low, high]."""
    return lambda value: isinstance(value, int) and is_whole(value) and low <= value <= high


def number(low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> Check:
    """A number within [low, high]; NaN and infinities are none."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object) -> bool:
    """A number of any size; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """An integer of any size."""
    return isinstance(value, int) and not isinstance(value, bool)


def one_of(*values: object) -> Check:
    """One of these, of the same type."""
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def either(*rules: Check) -> Check:
    """Any value that at least one of the rules allows."""
    return lambda value: any(rule(value) for rule in rules)


def list_of(length: int, rule: Check) -> Check:
    """A list or tuple of ``length`` values that ``rule`` allows."""
    return lambda value: isinstance(value, list | tuple) and len(value) == length and all(map(rule, value))


def every(rule: Check) -> Check:
    """A list or tuple, of any length, of values that ``rule`` allows."""
    return lambda value: isinstance(value, list | tuple) and all(map(rule, value))


is_none = one_of(None)
is_channels = whole(1, MAX_CHANNELS)
is_features = whole(1, MAX_FEATURES)
is_units = whole(1, MAX_UNITS)
is_size = whole(1, MAX_SIZE)
is_limit = either(is_none, number(0, MAX_DISPLACEMENT))
is_sigma = number(*SIGMA_RANGE)


def is_odd_size(value: object) -> bool:
    """The side of a window that has a centre."""
    return is_size(value) and isinstance(value, int) and value % 2 == 1


def check_type(value: object, rule: Check, must: str) -> None:
    """Raise ``TypeError``, which says what ``value`` ``must`` be and what it is, unless ``rule`` allows it."""
    if not rule(value):
        raise TypeError(f"{must}, got {type(value).__name__} {in_short(value)}")


def in_short(value: object, most: int = 200) -> str:
    """``value`` as a message shows it: one line that is not too long, however large the value is."""
    text = repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return text if len(text) <= most else text[: most - 3] + "..."
