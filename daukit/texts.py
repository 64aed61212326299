"""Text that daukit did not write itself: one way to decode it, one way to read JSON, and how to show it safely.

What comes out is bounded, so that no caller has to ask again: numbers are finite and fit 64 bits, keys are said once,
nesting is shallow. What is shown commands neither a terminal nor a spreadsheet.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from daukit.errors import CheckpointError, DataError, DaukitError

MAX_DEPTH = 64
"""The deepest nesting of JSON: headers and settings need ten levels, and more would exhaust recursive code later."""

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # what terminals obey
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e"  # what has no width, ends a line or turns its direction
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # more of no width
    "\ud800-\udfff]"  # bytes of a path that are no text
)
_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of cells that spreadsheets compute; the last four are those of wide scripts."""

_INTEGERS = range(-(2**63), 2**63)
_MAX_DIGITS = 20  # of a 64-bit integer and its sign


def visible(text: str) -> str:
    r"""``text`` with an escape, as ``\x1b``, in place of every character that is obeyed instead of seen.

    Those are control characters, line breaks among them, marks of direction and of no width, and the bytes of a path
    that are not UTF-8.
    """
    return _UNSEEN.sub(_escape, text)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV, a line per row: None stays empty, texts are ``visible`` and none of them is a formula.

    A text that spreadsheets would compute begins with an apostrophe, which they take for "this is text".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULAS) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte that is no text
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()


def counted(number: int, noun: str) -> str:
    """A number of things: ``"1 epoch"``, ``"1,200 epochs"``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that comes nearest, as ``"; did you mean 'conv2'?"``; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def read_text(path: Path, *, error: type[DaukitError] = DataError) -> str:
    """Decode a text file that a person wrote: UTF-8, with or without a byte order mark.

    Raises:
        DataError: it cannot be read, or it is of another encoding; ``error`` in its place where that says more.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: byte {problem.start} is not UTF-8; save it as UTF-8 and try again") from None


def read_lines(path: Path, *, error: type[DaukitError] = DataError) -> list[str]:
    """The lines of a text file, decoded as by ``read_text``, without blank ones at its end."""
    lines = [line.strip() for line in read_text(path, error=error).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def parse_json(
    text: str | bytes, path: Path | None, *, what: str = "its text", error: type[DaukitError] = CheckpointError
) -> Any:
    """Read JSON from ``path``, or from wherever it came.

    Args:
        text: the JSON.
        path: the file that the message names.
        what: the part of the file that it is, as the message calls it.
        error: what to raise.

    Raises:
        CheckpointError: it is no JSON, nests deeper than ``MAX_DEPTH``, says a key twice, or holds a number that is not
            finite, an integer of more than 64 bits or half a character; ``error`` in its place where that says more.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_float, parse_int=_integer, object_pairs_hook=_object
        )
        _check_inside(value)
    except RecursionError:
        raise error(f"{path}: {what} nests deeper than {MAX_DEPTH} levels; the file is damaged") from None
    except ValueError as problem:  # JSONDecodeError and UnicodeDecodeError are among them
        raise error(f"{path}: {what} is not JSON that daukit reads: {problem}; the file is damaged") from None
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _integer(digits: str) -> int:
    # Their number is looked at first: Python takes quadratic time for long integers, and refuses very long ones.
    value = int(digits) if len(digits) <= _MAX_DIGITS else None
    if value is None or value not in _INTEGERS:
        raise ValueError(f"{digits[:40]} is an integer of more than 64 bits")
    return value


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key[:80]!r} is said twice")
        result[key] = value
    return result


def _check_inside(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        for text in (part for part in level if isinstance(part, str)):
            text.encode()  # a lone surrogate, which no file, terminal or library takes, is a UnicodeError
        inside = [part for part in level if isinstance(part, dict | list)]
        for key in (key for part in inside if isinstance(part, dict) for key in part):
            key.encode()
        level = [v for part in inside for v in (part.values() if isinstance(part, dict) else part)]
