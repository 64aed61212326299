"""Broken files without end: ``python tests/fuzz.py`` (``make fuzz``) feeds them to the readers until it is stopped.

A mutant may be refused with one ``CheckpointError``, or be read where what changed is only data. Anything else is a
bug: another exception, a network with a value that is no number.
"""

import json
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

import torch

import daukit
from daukit.checkpoint import build_model, from_model, read_any, save
from daukit.errors import CheckpointError
from daukit.offsets import displacement_distributions
from daukit.pruning import prune

HOSTILE = (
    None, True, -1, 0, 1, 2, 3, 10**6, 10**12, 10**30, 0.5, -0.5, 1e308, "", "x", "shallow", "DAUConv2d", [], [0], {},
    [10**9, 10**9], {"type": "Linear"}, {"name": "grid"}, "../../etc/passwd", "os:system", "\x00", "\ud83d\ude00",
)  # fmt: skip


def seeds():
    """The bytes of sound files: dense, ragged with a learned sigma, general form."""
    torch.manual_seed(0)
    ragged = daukit.create_model("shallow_dau", channels=[2, 3, 4], units=2, learn_sigma="layer", input_size=[8, 8])
    ragged.conv2.keep_units(ragged.conv2.weight > 0)
    models = [
        daukit.create_model("shallow_dau", channels=[2, 3, 4], units=2, input_size=[8, 8]),
        ragged,
        daukit.create_model("shallow_dau", channels=[2, 2, 2], units=1, learn_sigma="unit", input_size=[8, 8]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for i, model in enumerate(models):
            path = Path(folder) / f"{i}.safetensors"
            save(model, path)
            yield path.read_bytes()


def mutant(data, dice):
    """A broken copy of ``data``."""
    kinds = (flipped, cut, patched, tensors_changed, header_changed, header_changed, values_changed)
    return dice.choice(kinds)(data, dice)


def flipped(data, dice):
    out = bytearray(data)
    reach = dice.choice((8, 200, len(out)))
    for _ in range(dice.randint(1, 8)):
        out[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    return bytes(out)


def cut(data, dice):
    start = dice.randrange(len(data))
    return dice.choice((data[:start], data[start:], data[:start] + data[start + dice.randint(1, 64) :], data * 2))


def patched(data, dice):
    start = dice.randrange(len(data))
    junk = dice.choice((dice.randbytes(dice.randint(1, 16)), b"\xff" * 8, struct.pack("<Q", 2**63), b"\x00" * 64))
    return data[:start] + junk + data[start + len(junk) * dice.randint(0, 1) :]


def parts(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensors_changed(data, dice):
    """Shapes, types, ranges and names of tensors."""
    header, body = parts(data)
    name, other = dice.sample([key for key in header if key != "__metadata__"], 2)
    entry, kind = header[name], dice.randrange(6)
    if kind == 0:
        entry["shape"] = dice.choice((entry["shape"][::-1], [*entry["shape"], 1], [], [0], [2**40, 2**40], [-1]))
    elif kind == 1:
        entry["dtype"] = dice.choice(("F16", "F64", "I64", "BOOL", "U8", "BF16", "F8_E4M3", "X"))
    elif kind == 2:
        entry["data_offsets"] = dice.choice((header[other]["data_offsets"], [0, 0], [0, 2**60], [8, 4]))
    elif kind == 3:
        del header[name]
    elif kind == 4:
        header[name], header[other] = header[other], header[name]
    else:
        header[dice.choice(("", "conv1", "conv2.weight.weight", name + "x"))] = header.pop(name)
    return joined(header, body)


def header_changed(data, dice):
    """One value anywhere in daukit's own header."""
    header, body = parts(data)
    own = json.loads(header["__metadata__"]["daukit"])
    node = own
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not (isinstance(node[key], dict | list) and node[key] and dice.random() < 0.8):
            break
        node = node[key]
    if dice.random() < 0.2 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = dice.choice(HOSTILE)
    header["__metadata__"]["daukit"] = json.dumps(own)
    return joined(header, body)


def values_changed(data, dice):
    """NaN, infinity or noise in the tensors' bytes."""
    out = bytearray(data)
    size = struct.unpack("<Q", data[:8])[0]
    start = 8 + size + 4 * dice.randrange((len(data) - 8 - size) // 4)
    values = (float("nan"), float("inf"), -3e38)
    out[start : start + 4] = struct.pack("<f", dice.choice(values))
    return bytes(out)


def accepts(path):
    """Read ``path`` in every way that needs no factory; True if it was accepted."""
    try:
        checkpoint = read_any(path)
        for name in checkpoint.layer_names:
            checkpoint.layer(name)
        prune(checkpoint, 0.1)
        displacement_distributions(checkpoint)
        model = build_model(checkpoint)
    except CheckpointError as error:
        text = str(error)
        assert str(path) in text, text
        assert "\n" not in text, text
        return False
    assert all(torch.isfinite(p).all() for p in model.parameters())
    # What was accepted can be written again.
    from_model(model)
    return True


def attack(count, seed, folder):
    """Feed ``count`` mutants to the readers; how many were accepted. The seed and number name a mutant again."""
    files, accepted = list(seeds()), 0
    path = Path(folder) / "mutant.safetensors"
    for number in range(count):
        dice = random.Random(f"{seed} {number}")
        data = mutant(dice.choice(files), dice)
        path.write_bytes(data)
        try:
            accepted += accepts(path)
        except Exception as error:
            raise AssertionError(f"mutant {number} of seed {seed}: {type(error).__name__}: {error}") from error
        assert path.read_bytes() == data, "a reader wrote to its input"
    return accepted


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns()
    with tempfile.TemporaryDirectory() as place:
        for turn in range(seed, sys.maxsize):
            print(f"seed {turn}: 1000 mutants, {attack(1000, turn, place)} accepted", flush=True)
