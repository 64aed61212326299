"""TensorFlow's V2 checkpoints, read without TensorFlow: an index of names beside files of raw values.

The index (``.index``) is a sorted table in LevelDB's format: blocks of entries whose keys share prefixes, and a footer
that says where the block of blocks is. Its values are protobuf messages that say where each tensor's bytes lie in
``.data-00000-of-00001`` and its likes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from daukit.checkpoint.file import check_readable
from daukit.errors import CheckpointError
from daukit.importers.messages import Message, parse

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
# TensorFlow's numbers of types; others (text, resources, quantised numbers) hold no weights.
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}


def _crc_step(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_STEPS = tuple(map(_crc_step, range(256)))


def index_path(path: Path) -> Path:
    """The index of a checkpoint named by its prefix (``model.ckpt-100``) or by any of its files."""
    name = path.name
    for mark in (".index", ".data-", ".meta"):
        name = name.partition(mark)[0] if mark in name else name
    return path.with_name(f"{name}.index")


def is_index(path: Path) -> bool:
    """Whether ``path`` is a table, by its last bytes."""
    if not path.is_file() or path.stat().st_size < _FOOTER:
        return False
    try:
        with path.open("rb") as file:
            file.seek(-8, 2)
            return file.read() == struct.pack("<Q", _MAGIC)
    except OSError:
        return False


def read_bundle(path: Path) -> dict[str, Tensor]:
    """All numeric tensors of the checkpoint whose index is ``path``, by name.

    Raises:
        CheckpointError: the index or a data file is missing, cut short or damaged.
    """
    entries = dict(_table(path.read_bytes(), path))
    header = parse("BundleHeaderProto", entries.pop(b"", b""), path)
    if header.num_shards < 1 or header.endianness != 0:
        raise CheckpointError(
            f"{path}: {header.num_shards} data files, byte order {header.endianness}; there must be one at least, of "
            "little-endian numbers"
        )
    tensors = {}
    for key, value in entries.items():
        name, entry = key.decode(errors="replace"), parse("BundleEntryProto", value, path)
        if entry.slices:
            raise CheckpointError(f"{path}: {name} is cut into parts; save it whole and try again")
        if entry.dtype in _DTYPES:
            tensors[name] = _read_tensor(path, name, entry, header.num_shards)
    return tensors


def _read_tensor(path: Path, name: str, entry: Message, shards: int) -> Tensor:
    dtype, shape = _DTYPES[entry.dtype], [dim.size for dim in entry.shape.dim]
    file = path.with_name(f"{path.stem}.data-{entry.shard_id:05d}-of-{shards:05d}")
    if not file.is_file():
        raise CheckpointError(f"{path}: there is no {file.name} beside it, which holds {name}")
    check_readable(file)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or entry.size != size or not 0 <= entry.offset <= file.stat().st_size - size:
        raise CheckpointError(
            f"{path}: {name} {shape} takes {size} bytes, the index says {entry.size} from byte {entry.offset} of "
            f"{file.name}, which has {file.stat().st_size}"
        )
    with file.open("rb") as data:
        data.seek(entry.offset)
        values = bytearray(data.read(size))
    return torch.frombuffer(values, dtype=dtype).reshape(shape) if values else torch.empty(shape, dtype=dtype)


def _table(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in order."""
    try:
        footer = data[-_FOOTER:]
        if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
            raise ValueError("its last bytes are not a table's")
        _, place = _handle(footer, 0)  # of the block of statistics, which is empty
        where, _ = _handle(footer, place)
        for _, handle in _block(data, *where):
            yield from _block(data, *_handle(handle, 0)[0])
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole index of a TensorFlow checkpoint: {error}") from None


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block: length shared with the key before, length of the rest, length of the value, both."""
    if size < 4 or offset + size + 5 > len(data):
        raise ValueError(f"a block of {size} bytes at {offset} in {len(data)}")
    if data[offset + size] != 0:
        raise ValueError("its blocks are compressed, which TensorFlow itself never does")
    block = data[offset : offset + size]
    if _checksum(data[offset : offset + size + 1]) != struct.unpack_from("<I", data, offset + size + 1)[0]:
        raise ValueError(f"the checksum of the block at {offset} is wrong")
    end = size - 4 * (1 + struct.unpack("<I", block[-4:])[0])  # a list of restart points, then its length
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        rest, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + rest + length > end:
            raise ValueError(f"an entry of {rest} + {length} bytes at {place} in a block of {end}")
        key = key[:shared] + block[place : place + rest]
        yield key, block[place + rest : place + rest + length]
        place += rest + length
    if place != end:
        raise ValueError("a block ends within an entry")


def _checksum(data: bytes) -> int:
    """CRC-32C, turned and moved as LevelDB stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_STEPS[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the next item begins."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and where the next item begins."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError(f"a number of more than 64 bits at {place}")
