"""Names of classes, one per line of a text file."""

from __future__ import annotations

from pathlib import Path

from daukit.errors import DataError
from daukit.preprocessing import MAX_NAME
from daukit.texts import read_lines


def read_class_names(path: str | Path, number: int | None = None) -> tuple[str, ...]:
    """The names in a file, by class.

    Args:
        path: the file.
        number: of names that there must be; default: at least one.

    Raises:
        DataError: the file cannot be read, names another number of classes, or has a line that is no name.
    """
    path = Path(path)
    names = read_lines(path)
    if not names:
        raise DataError(f"{path}: names no class; write one a line, or remove the file")
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is blank; every line but the last ones must name a class")
    long = next((name for name in names if len(name) > MAX_NAME), None)
    if long is not None:
        raise DataError(
            f"{path}: line {names.index(long) + 1} has more than {MAX_NAME} characters; is it a list of classes?"
        )
    if number is not None and len(names) != number:
        raise DataError(f"{path}: names {len(names)} classes, and the data set has {number}; write one a line")
    return tuple(names)
