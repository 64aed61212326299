"""What a folder or a list names; no file is looked at."""

from __future__ import annotations

import os
from pathlib import Path

from daukit.errors import DataError
from daukit.pictures import SUFFIXES
from daukit.texts import read_lines


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, but for hidden ones, in their order.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    return sorted(name for name, is_folder in _entries(folder).items() if is_folder)


def by_stem(folder: Path, endings: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """The files of a folder with one of these endings, pictures by default, by their names without it, in their order.

    Raises:
        DataError: the folder is not there or has no such file, or two files differ by the ending alone.
    """
    found: dict[str, Path] = {}
    for name, is_folder in sorted(_entries(folder).items()):
        ending = next((ending for ending in endings if name.lower().endswith(ending.lower())), None)
        if is_folder or ending is None:
            continue
        stem = name[: -len(ending)]
        if stem in found:
            raise DataError(f"{folder / name}: {found[stem].name} is there too, so its partner cannot be told")
        found[stem] = folder / name
    if not found:
        kind = "picture" if endings == SUFFIXES else "file"
        raise DataError(f"{folder}: there is no {kind} ({', '.join(endings)}) in it")
    return found


def read_names(path: Path) -> list[str]:
    """The names in a list of pictures, one a line, without folders and endings.

    Raises:
        DataError: the list cannot be read, names nothing, names a picture twice, or has a line that is no name.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: names no picture; it must name one a line")
    first: dict[str, int] = {}
    for number, name in enumerate(lines, start=1):
        if not name.isprintable() or not name.strip(".") or {"/", "\\"} & set(name):
            raise DataError(
                f"{path}: line {number} is {name[:40]!r}, and must be the name of a picture, without folder and ending"
            )
        if name in first:
            raise DataError(f"{path}: line {number} names {name} again, as line {first[name]} does; drop one")
        first[name] = number
    return lines


def _entries(folder: Path) -> dict[str, bool]:
    """What is in a folder and not hidden, as macOS's ``._`` companions are: by name, if it is a folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    except FileNotFoundError:
        raise DataError(f"{folder}: there is no such folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
