"""Take the photographs out of Debian's package gcompris-qt-data: ``python photographs.py PACKAGE OUT``.

PACKAGE is the folder into which it was unpacked, OUT becomes a folder of 106 WebP files: animals and monuments, 359 to
1920 pixels wide. Each set's README is beside them and names the photographers and the licences, which are CC BY-SA 4.0
for many, else CC BY, CC0 or none; so no photograph and nothing made of those is part of daukit.

The package keeps them in Qt's binary resources: a tree of nodes, a table of names and the files, one after the other,
all numbers with the highest byte first. Photographs lie there as they are, other files may be compressed.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from daukit.errors import DataError, DaukitError
from daukit.files import new_folder

PLACE = "usr/share/gcompris-qt/rcc"
SETS = {"erase": 33, "explore_farm_animals": 9, "explore_monuments": 49, "explore_world_animals": 15}
"""Number of photographs by resource file; names within two of them may be the same."""

_COMPRESSED, _FOLDER = 1, 2


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files in one of Qt's resource files, each with its name without folders.

    Raises:
        DataError: it is not there, or is no such file.
    """
    try:
        data = path.read_bytes()
        magic, version, tree, files, names = struct.unpack_from(">4s4I", data)
        if magic != b"qres":
            raise DataError(f"{path}: is no file of Qt's resources; unpack gcompris-qt-data again")
        node_size = 22 if version >= 2 else 14
        folders = [0]
        while folders:
            _, flags, count, first = struct.unpack_from(">IHII", data, tree + folders.pop() * node_size)
            for number in range(first, first + count):
                node = tree + number * node_size
                name, flags = struct.unpack_from(">IH", data, node)
                if flags & _FOLDER:
                    folders.append(number)
                else:
                    content = _content(data, files + struct.unpack_from(">I", data, node + 10)[0], flags)
                    yield _name(data, names + name), content
    except (OSError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); unpack gcompris-qt-data again") from None


def _name(data: bytes, start: int) -> str:
    (length,) = struct.unpack_from(">H", data, start)  # then four bytes of a hash
    return data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")


def _content(data: bytes, start: int, flags: int) -> bytes:
    (length,) = struct.unpack_from(">I", data, start)
    content = data[start + 4 : start + 4 + length]
    return zlib.decompress(content[4:]) if flags & _COMPRESSED else content  # behind its length


def main(package: Path, out: Path) -> None:
    with new_folder(out) as folder:
        for name, count in SETS.items():
            path = package / PLACE / f"{name}.rcc"
            found = {file: content for file, content in read_resources(path) if file.endswith((".webp", "README"))}
            photographs = sum(file.endswith(".webp") for file in found)
            if photographs != count:
                raise DataError(f"{path}: has {photographs} photographs where version 3.1-2 of the package has {count}")
            for file, content in found.items():
                (folder / f"{name}-{file}").write_bytes(content)
    print(f"{out}: {sum(SETS.values())} photographs")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except DaukitError as error:
        sys.exit(str(error))
