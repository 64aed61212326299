"""The scripts of examples/ that make data, imported as modules, and what they need: tiny packages and photographs."""

import importlib
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent / "examples"


def script(folder, name):
    """The module of ``examples/FOLDER/NAME.py``; its neighbours are found as when it is run."""
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))
    return importlib.import_module(name)


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()


def bytes_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_picture(path, *shape, color, seed=None):
    """One colour, or with a seed noise of about it, (h, w) + the colour's channels."""
    values = np.broadcast_to(np.array(color, np.int64), (*shape, len(color)))
    if seed is not None:
        values = values + np.random.default_rng(seed).integers(-40, 40, values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path, lossless=True)


def resource_file(files):
    """Qt's resource file of ``{name: content}`` in a folder below its root, the first of them compressed."""
    names, contents, nodes = b"", b"", [(0, 2, 1, 1), (0, 2, len(files), 2)]
    for number, (name, content) in enumerate({"folder": b"", **files}.items()):
        start = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if number:
            packed = struct.pack(">I", len(content)) + zlib.compress(content) if number == 1 else content
            nodes.append((start, int(number == 1), 0, len(contents)))
            contents += struct.pack(">I", len(packed)) + packed
    tree = b"".join(
        struct.pack(">IHIIQ", name, flags, count, first, 0)
        if flags & 2
        else struct.pack(">IHHHIQ", name, flags, 0, 0, first, 0)
        for name, flags, count, first in nodes
    )
    header = 24
    ends = [header, header + len(tree), header + len(tree) + len(contents)]
    return b"qres" + struct.pack(">5I", 3, ends[0], ends[1], ends[2], 0) + tree + contents + names
