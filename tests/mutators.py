"""Broken copies of foreign files, one function a format: each takes bytes and a ``random.Random`` and returns bytes.

Those that know a format's structure change one thing in it and mend what encloses it, lengths and checksums, so that
the mutant comes past the first check.
"""

import io
import struct
import warnings
import zipfile
from pathlib import Path

from imported import varint
from tensorflow_files import table

from daukit.importers.checksums import masked_crc32c
from daukit.importers.tensorflow_table import entries_of

NUMBERS = (0, 1, 2, 3, 7, 127, 128, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 3e38, -1.0, 0.0, 1e-45, -1e-3)


def flipped_or_cut(data, dice):
    """Bits flipped, most of them early; or bytes lost, doubled, put in or replaced."""
    if not data:
        return dice.randbytes(dice.randint(0, 8))
    kind = dice.randrange(5)
    if kind < 2:
        out = bytearray(data)
        reach = dice.choice((8, 64, 300, len(out)))
        for _ in range(dice.randint(1, 6)):
            out[dice.randrange(min(reach, len(out)))] ^= 1 << dice.randrange(8)
        return bytes(out)
    start = dice.randrange(len(data))
    if kind == 2:
        return dice.choice((data[:start], data[start:], data[:start] + data[start + dice.randint(1, 64) :], data * 2))
    junk = dice.choice((dice.randbytes(dice.randint(1, 16)), b"\xff" * 8, b"\x80" * 12, bytes(64)))
    return data[:start] + junk + data[start + len(junk) * dice.randint(0, 1) :]


def caffemodel(data, dice):
    """A net, or any protobuf message, with one field changed at some depth."""
    return flipped_or_cut(data, dice) if dice.random() < 0.2 else message(data, dice)


def message(data, dice):
    """A protobuf message with one field lost, doubled, moved, or of another number or value."""
    try:
        fields = fields_of(data)
    except (IndexError, ValueError):
        fields = []
    if not fields:
        return dice.choice((numbers_changed, flipped_or_cut))(data, dice)
    at = dice.randrange(len(fields))
    number, wire, value = fields[at]
    kind = dice.randrange(8)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields += [fields[at]] * dice.choice((1, 1, 9, 300))
    elif kind == 2:
        fields[at] = (dice.choice((1, 2, 3, 5, 7, 8, 100, 106, 1106, 2**28)), wire, value)
    elif isinstance(value, bytes) and wire == 2:
        fields[at] = (number, wire, b"" if dice.random() < 0.05 else message(value, dice))
    else:
        fields[at] = (number, wire, dice.choice(NUMBERS) if wire == 0 else dice.randbytes(len(value)))
    return b"".join(map(field, fields))


def fields_of(data):
    """The fields of a message: (number, wire type, value); an error where it is none."""
    fields, place = [], 0
    while place < len(data):
        tag, place = number_at(data, place)
        number, wire = tag >> 3, tag & 7
        if not number or wire not in (0, 1, 2, 5):
            raise ValueError(tag)
        if wire == 0:
            value, place = number_at(data, place)
        else:
            size, place = number_at(data, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
            value = data[place : place + size]
            place += size
        if place > len(data):
            raise ValueError(place)
        fields.append((number, wire, value))
    return fields


def field(parts):
    number, wire, value = parts
    tag = varint(number << 3 | wire)
    return tag + (varint(value) if wire == 0 else varint(len(value)) + value if wire == 2 else value)


def number_at(data, place):
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def numbers_changed(data, dice):
    """Floats or doubles of which one is no weight."""
    out, size = bytearray(data), dice.choice((4, 8))
    if len(out) < size:
        return dice.randbytes(size)
    start = dice.randrange(0, len(out) - size + 1, size)
    out[start : start + size] = struct.pack("<f" if size == 4 else "<d", dice.choice(FLOATS))
    return bytes(out)


def tensorflow_index(data, dice):
    """A table with another order, other keys or an entry changed, and the checksums of that."""
    if dice.random() < 0.2:
        return flipped_or_cut(data, dice)
    items = list(entries_of(data, Path("index")))
    at, kind = dice.randrange(len(items)), dice.randrange(7)
    key, value = items[at]
    if kind == 0:
        items.insert(dice.randrange(len(items)), items.pop(at))
    elif kind == 1:
        items.insert(at, items[at])
    elif kind == 2:
        items[at] = (flipped_or_cut(key, dice), value)
    else:
        items[at] = (key, message(value, dice))
    cut = dice.randrange(len(items) + 1)
    blocks = [part for part in (items[:cut], items[cut:]) if part]
    return table(*blocks, kind=dice.random() > 0.95, checksum=lambda data: struct.pack("<I", masked_crc32c(data)))


def npz(data, dice):
    """An archive of arrays with one member's header changed, or as ``archive`` changes it."""
    if dice.random() < 0.5:
        return archive(data, dice)

    def changed(name, content):
        start = content.index(b"{")
        old = dice.choice((b"<f4", b"<i8", b"False", b"shape", b"descr", b"(", b")", b"1", b",", b"}", b"'"))
        new = dice.choice(
            (b"<f8", b">f4", b"|b1", b"<c8", b"|O8", b"<f16", b"|V4", b"(2,3)f4", b"True", b"[", b"-1", b"9" * 20,
             b"1L", b"(" * 200, b"None", b"b''", b"", b"\\", b"\xff", b"\n", b"0")
        )  # fmt: skip
        head, rest = content[start : start + 118], content[start + 118 :]
        return name, content[:start] + head.replace(old, new, dice.choice((1, -1))).ljust(118)[:118] + rest

    return rewritten(data, dice, changed)


def pth(data, dice):
    """A file of torch.save's with its pickle changed, or as ``archive`` changes it."""
    if dice.random() < 0.4:
        return archive(data, dice)

    def changed(name, content):
        return name, flipped_or_cut(content, dice)

    return rewritten(data, dice, changed, only="data.pkl" if dice.random() < 0.8 else "")


def archive(data, dice):
    """A zip archive with a member lost, doubled, renamed or damaged, or with a number in its directories changed."""
    kind = dice.randrange(5)
    if kind == 0:
        return flipped_or_cut(data, dice)
    if kind == 1:
        return directory_changed(data, dice)
    if kind == 2:
        return rewritten(data, dice, lambda name, content: (name, flipped_or_cut(content, dice)))
    if kind == 3:
        return rewritten(data, dice, lambda name, content: None)
    names = ("", "\xff\xfe", "../x.npy", "a/weights.npy", "x" * 300 + ".npy", "x\0y.npy", "\u732b.npy")
    return rewritten(data, dice, lambda name, content: (dice.choice(names), content))


def rewritten(data, dice, change, only=""):
    """The archive written anew with ``change(name, content)`` in the place of one member; None drops it."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
    places = [i for i, (name, _) in enumerate(members) if name.endswith(only)]
    at = dice.choice(places)
    members[at] = change(*members[at])
    out, method = io.BytesIO(), dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as target:
        warnings.simplefilter("ignore")  # of double names
        for name, content in filter(None, members):
            target.writestr(name or "_", content)
    return out.getvalue()


def directory_changed(data, dice):
    """One number in a local header, in the central directory or in its end."""
    layouts = {
        b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
        b"PK\1\2": ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)),
        b"PK\5\6": ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    }
    mark = dice.choice(list(layouts))
    places = [i for i in range(len(data)) if data[i : i + 4] == mark]
    start, (offset, size) = dice.choice(places), dice.choice(layouts[mark])
    out = bytearray(data)
    old = int.from_bytes(out[start + offset : start + offset + size], "little")
    new = dice.choice((0, 1, 8, 14, old + 1, old - 1, old * 2, 2 ** (8 * size) - 1, dice.getrandbits(8 * size)))
    out[start + offset : start + offset + size] = (new % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(out)
