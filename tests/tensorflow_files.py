"""TensorFlow's checkpoints for tests, written after the descriptions of their formats."""

import struct

import numpy as np
from imported import chunk, crc32c_bit_by_bit, varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
HEADER = (b"", varint(1 << 3) + varint(1))
UNITS = {"a/mu1": [1.0, 2.0], "a/mu2": [3.0, 4.0], "a/sigma": [0.5], "a/weights": [5.0, 6.0]}


def masked_crc(data):
    """CRC-32C, turned by 15 bits and moved, as LevelDB keeps it."""
    crc = crc32c_bit_by_bit(data)
    return struct.pack("<I", ((crc >> 15) + (crc << 17) + 0xA282EAD8) % 2**32)


def table(*blocks, kind=0, handles_of=lambda handles: handles, checksum=masked_crc):
    """An index of uncompressed blocks of (key, value), written after LevelDB's description of its format."""

    def block(items):
        entries = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in items)
        return entries + struct.pack("<II", 0, 1)  # one restart point, at 0

    data, handles = b"", []
    for items in [*blocks, []]:
        content = block(items)
        handles.append((items[-1][0] if items else b"", varint(len(data)) + varint(len(content))))
        data += content + bytes([kind]) + checksum(content + bytes([kind]))
    statistics = handles.pop()[1]
    content = block(handles_of(handles))
    place = varint(len(data)) + varint(len(content))
    data += content + bytes([kind]) + checksum(content + bytes([kind]))
    return data + (statistics + place).ljust(40, b"\0") + MAGIC


def entry(shape, data=None, size=None, dtype=1, offset=0, shard=0, extra=b""):
    """A BundleEntryProto; with ``data``, the file's content, its checksum, too."""
    dims = b"".join(chunk(2, varint(1 << 3) + varint(n)) for n in shape)
    size = 4 * int(np.prod(shape)) if size is None else size
    numbers = {1: dtype, 3: shard, 4: offset, 5: size}
    crc = b"" if data is None else varint(6 << 3 | 5) + masked_crc(data[offset : offset + size])
    return chunk(2, dims) + b"".join(varint(k << 3) + varint(v) for k, v in numbers.items()) + crc + extra


def variables(named=UNITS):
    """Entries of float32 variables that follow each other, and the data file's content."""
    data = b"".join(struct.pack(f"<{len(v)}f", *v) for v in named.values())
    items, offset = {}, 0
    for name, values in named.items():
        shape = (1,) if name.endswith("sigma") else (1, 1, 1, len(values))
        items[name.encode()] = entry(shape, data, offset=offset)
        offset += 4 * len(values)
    return items, data


def index(**changes):
    """The index of one layer, "a", with other entries in the places of its own: ``mu1=...``; None drops one."""
    items, _ = variables()
    items |= {f"a/{name}".encode(): value for name, value in changes.items()}
    return table([HEADER, *((name, value) for name, value in sorted(items.items()) if value is not None)])


def bundle(folder, index, data=None):
    """The two files of a checkpoint; its prefix."""
    (folder / "model.index").write_bytes(index)
    (folder / "model.data-00000-of-00001").write_bytes(variables()[1] if data is None else data)
    return folder / "model"
