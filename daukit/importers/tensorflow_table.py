"""Sorted tables in LevelDB's format, such as the ``.index`` of a TensorFlow checkpoint.

Blocks of entries whose keys share prefixes, and a footer that says where the block of blocks is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from daukit.errors import CheckpointError
from daukit.importers.checksums import masked_crc32c

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_KEY = 1024  # bytes: names are shorter, and keys that share long prefixes would grow to many times the file


def index_path(path: Path) -> Path:
    """The index of a checkpoint named by its prefix (``model.ckpt-100``) or by any of its files."""
    name = path.name
    if not name:  # "." or "/", which is no prefix
        return path
    for mark in (".index", ".data-", ".meta"):
        name = name.partition(mark)[0] if mark in name else name
    return path.with_name(f"{name}.index")


def is_index(path: Path) -> bool:
    """True if ``path`` is a table, by its last bytes."""
    try:
        if not path.is_file() or path.stat().st_size < _FOOTER:
            return False
        with path.open("rb") as file:
            file.seek(-8, 2)
            return file.read() == struct.pack("<Q", _MAGIC)
    except OSError:
        return False


def entries_of(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the table ``data``, the content of ``path``, in order.

    Raises:
        CheckpointError: a part is missing or damaged, by its checksum too, or blocks or keys are out of order.
    """
    try:
        footer = data[-_FOOTER:]
        if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
            raise ValueError("its last bytes are not a table's")
        _, place = _handle(footer, 0)  # of the block of statistics, which is empty
        where, _ = _handle(footer, place)
        end, before = 0, None
        for _, handle in _block(data, *where):
            (offset, size), _ = _handle(handle, 0)
            if offset < end:  # or a small file could list one block without end
                raise ValueError(f"a block at {offset} begins before {end}, where the one before it ends")
            end = offset + size
            for key, value in _block(data, offset, size):
                if before is not None and key <= before:
                    raise ValueError(f"key {key[:80]!r} does not come after {before[:80]!r}")
                yield key, value
                before = key
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole index of a TensorFlow checkpoint: {error}") from None


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block: length shared with the key before, length of the rest, length of the value, both."""
    if size < 4 or offset + size + 5 > len(data):
        raise ValueError(f"a block of {size} bytes at {offset} in {len(data)}")
    if data[offset + size] != 0:
        raise ValueError("its blocks are compressed, which TensorFlow itself never does")
    block = data[offset : offset + size]
    if masked_crc32c(data[offset : offset + size + 1]) != struct.unpack_from("<I", data, offset + size + 1)[0]:
        raise ValueError(f"the checksum of the block at {offset} is wrong")
    end = size - 4 * (1 + struct.unpack("<I", block[-4:])[0])  # a list of restart points, then its length
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        rest, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + rest + length > end:
            raise ValueError(f"an entry of {rest} + {length} bytes at {place} in a block of {end}")
        if shared + rest > _MAX_KEY:
            raise ValueError(f"a key of {shared + rest} bytes; names have at most {_MAX_KEY}")
        key = key[:shared] + block[place : place + rest]
        yield key, block[place + rest : place + rest + length]
        place += rest + length
    if place != end:
        raise ValueError("a block ends within an entry")


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Read the offset and the size of a block, and the place of the next item."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a number in groups of seven bits, lowest first, and the place of the next item."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError(f"a number of more than 64 bits at {place}")
