"""Broken copies of daukit's own files, of state dicts and of IDX files; those of other formats are in mutators.py.

Each function takes bytes and dice (a ``random.Random``) and gives bytes. What is broken is one thing in the structure;
the rest is written anew around it, so that it is what the reader meets.
"""

import gzip
import json
import struct

from mutators import NUMBERS, flipped_or_cut, rewritten
from mutators import pth as archive_mutant

HOSTILE = (
    None, True, -1, 0, 1, 2, 3, 10**6, 10**12, 10**30, 0.5, -0.5, 1e308, "", "x", "shallow", "DAUConv2d", [], [0], {},
    [10**9, 10**9], {"type": "Linear"}, {"name": "grid"}, "../../etc/passwd", "os:system", "\x00", "\ud83d\ude00",
    [[1, 1], [2, 2]], ["a", "b"], [1, -1], [0, 0], {"x": 1}, [None, None], [1e308, 1e308], 2**63, -(2**63), 1e-308,
)  # fmt: skip
HOSTILE_TEXTS = ("NaN", "-Infinity", "1e999", "1" + "0" * 5000, "[" * 3000, '{"a":' * 3000, '"', "\x00", "\ufeff", "//")


def plain(data, dice):
    """Without any knowledge of the format."""
    return dice.choice((flipped_or_cut, flipped_or_cut, flipped_near_the_end))(data, dice)


def flipped_near_the_end(data, dice):
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        out[-1 - dice.randrange(min(len(out), 400))] ^= 1 << dice.randrange(8)
    return bytes(out)


def parts(data):
    """The header of a safetensors file, and what follows it."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def json_changed(text, dice):
    """One value anywhere in JSON, or its text where JSON could not say it."""
    kind = dice.randrange(10)
    if kind == 0:
        start = dice.randrange(len(text))
        return text[:start] + dice.choice(HOSTILE_TEXTS) + text[start + dice.randint(0, 3) :]
    data = json.loads(text)
    if kind == 1:
        key = dice.choice(list(data))
        return f'{{"{key}": 0, {json.dumps(data)[1:]}'  # says a key twice
    if kind == 2:
        return json.dumps(data).replace(dice.choice(("1", "2", "0.5", "4.0")), dice.choice(HOSTILE_TEXTS), 1)
    if kind == 3:
        return json.dumps(dice.choice(HOSTILE))
    node = data
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not (isinstance(node[key], dict | list) and node[key] and dice.random() < 0.8):
            break
        node = node[key]
    if dice.random() < 0.2 and isinstance(node, dict):
        del node[key]
    elif dice.random() < 0.2 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = dice.choice(HOSTILE)
    return json.dumps(data)


def header_changed(data, dice):
    """Something in one text of the metadata."""
    header, body = parts(data)
    key = dice.choice(list(header["__metadata__"]))
    header["__metadata__"][key] = json_changed(header["__metadata__"][key], dice)
    return joined(header, body)


def tensors_changed(data, dice):
    """Shapes, types, ranges and names of tensors."""
    header, body = parts(data)
    name, other = dice.sample([key for key in header if key != "__metadata__"], 2)
    entry, kind = header[name], dice.randrange(7)
    if kind == 0:
        old = entry["shape"]
        shapes = (old[::-1], [*old, 1], [], [0], [2**40, 2**40], [-1], [1] * 80, [*old, 0])
        entry["shape"] = dice.choice(shapes)
    elif kind == 1:
        kinds = ("F16", "F64", "I64", "BOOL", "U8", "BF16", "F8_E4M3", "F8_E5M2", "I32", "U16", "U32", "C64", "X")
        entry["dtype"] = dice.choice(kinds)
    elif kind == 2:
        entry["data_offsets"] = dice.choice((header[other]["data_offsets"], [0, 0], [0, 2**60], [8, 4]))
    elif kind == 3:
        del header[name]
    elif kind == 4:
        header[name], header[other] = header[other], header[name]
    elif kind == 5:
        header[dice.choice(("", "conv1", "conv2.weight.weight", name + "x", "\x1b[2J"))] = header.pop(name)
    else:
        return _retyped(header, body, name, dice)
    return joined(header, body)


def _retyped(header, body, name, dice):
    """A tensor stored as another type, all offsets in order: a sound file of an unsound network."""
    kind, size = dice.choice((("I32", 4), ("I64", 8), ("F64", 8), ("F16", 2), ("BOOL", 1), ("U8", 1), ("F8_E5M2", 1)))
    place, new, result = 0, b"", {"__metadata__": header.pop("__metadata__")}
    for key, entry in header.items():
        start, end = entry["data_offsets"]
        values = body[start:end]
        if key == name:
            count = 1
            for length in entry["shape"]:
                count *= length
            values = dice.randbytes(count * size)
            entry = {**entry, "dtype": kind}
        new += values
        result[key] = {**entry, "data_offsets": [place, place := place + len(values)]}
    return joined(result, new)


def values_changed(data, dice):
    """NaN, infinity or noise in the tensors' bytes."""
    out = bytearray(data)
    size = struct.unpack("<Q", data[:8])[0]
    if len(data) - 8 - size < 4:
        return bytes(out)
    start = 8 + size + 4 * dice.randrange((len(data) - 8 - size) // 4)
    values = (float("nan"), float("inf"), -3e38)
    out[start : start + 4] = struct.pack("<f", dice.choice(values))
    return bytes(out)


def safetensors(data, dice):
    kinds = (plain, tensors_changed, header_changed, header_changed, header_changed, values_changed)
    return dice.choice(kinds)(data, dice)


def pickle_changed(content, dice):
    """Names and numbers in the pickle of a state dict."""
    kind = dice.randrange(4)
    if kind == 0:
        return plain(content, dice)
    places = [i for i in range(len(content) - 6) if content[i : i + 1] == b"X"]
    places = [i for i in places if 0 < struct.unpack_from("<I", content, i + 1)[0] < len(content) - i - 5]
    if kind == 1 and places:
        place = dice.choice(places)
        size = struct.unpack_from("<I", content, place + 1)[0]
        text = dice.choice(("", "cuda:0", "meta", "1", "conv1.weight", "x" * 300, "../../x", "-1")).encode()
        return content[:place] + b"X" + struct.pack("<I", len(text)) + text + content[place + 5 + size :]
    if kind == 2:
        storage = dice.choice(("Double", "Half", "BFloat16", "ComplexFloat", "Int", "Bool")).encode()
        return content.replace(b"FloatStorage", storage + b"Storage", dice.choice((1, -1)))
    numbers = [i for i in range(len(content) - 2) if content[i : i + 1] in b"KM"]
    place = dice.choice(numbers)
    width = {b"K": 1, b"M": 2}[content[place : place + 1]]
    number = b"J" + struct.pack("<i", dice.choice((-1, 0, 1, 2, 5, 2**31 - 1, -(2**31), 10**6)))
    return content[:place] + number + content[place + 1 + width :]


def pth(data, dice):
    if data[:2] != b"PK" or dice.random() < 0.1:
        return plain(data, dice)
    if dice.random() < 0.5:
        return archive_mutant(data, dice)
    return rewritten(data, dice, lambda name, content: (name, pickle_changed(content, dice)), only="data.pkl")


def idx(data, dice):
    is_zipped = data[:2] == b"\x1f\x8b"
    kind = dice.randrange(4)
    if kind == 0:
        return plain(data, dice)
    raw = bytearray(gzip.decompress(data) if is_zipped else data)
    if kind == 1:
        place = dice.randrange(4 + 4 * raw[3])
        raw[place] = dice.choice((0, 1, 3, 8, 127, 255))
    elif kind == 2:
        place = 4 + 4 * dice.randrange(raw[3])
        raw[place : place + 4] = struct.pack(">I", dice.choice(NUMBERS) % 2**32)
    else:
        raw = raw + bytes(dice.choice((1, 1000, 1_000_000)))
    return gzip.compress(bytes(raw), 1) if is_zipped else bytes(raw)
