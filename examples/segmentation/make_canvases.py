"""Make cluttered canvases of Fashion-MNIST's items to segment: ``python make_canvases.py DATA OUT``.

DATA is the folder of the full Fashion-MNIST (Copyright 2017 Zalando SE, MIT licence; ``make data`` fetches it). OUT
becomes a folder of pictures with masks: ``train`` and ``val`` have items of its training part, no item in both, and
``test`` has items of its test part.

A canvas is grey, 96 pixels wide, and has two to five items and five to nine fragments of others, all 22 to 56 pixels
wide, one over the other in random order on a smooth texture; then come shade and noise. A fragment shows at most two
fifths of its item and belongs to the background. Of each item at least half stays in sight, so that its class can be
told, though only by looking far: the texture of fragments is that of items. Pixels are an item's where at least five of
the nine around are not 0 in Fashion-MNIST, which has specks beside many items.

Each canvas depends on the seed, its split and its number alone. The same versions of numpy and Pillow write the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pasting import Floats, Piece, Scene
from PIL import Image, ImageDraw, ImageFilter
from writing import Bytes, Picture, write_splits

from daukit.datasets import read_idx
from daukit.errors import DaukitError

SIZE = 96
SPLITS = ("train", "val", "test")
ITEMS, FRAGMENTS = (2, 5), (5, 9)
SCALE = (0.8, 2.0)
FRAGMENT = 0.4
VALIDATION = 5000
CLASSES = (
    "background", "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Items:
    """Items that canvases of a split may have: images (N, 28, 28) and labels (N) from 0."""

    images: Bytes
    labels: Bytes


def read_items(data: Path, seed: int) -> dict[str, Items]:
    """Items by split; which of the training part go to ``val`` depends on the seed."""
    train, test = _read(data, "train"), _read(data, "t10k")
    order = np.random.default_rng(seed).permutation(len(train.labels))
    held = min(VALIDATION, len(order) // 2)
    val, rest = order[:held], order[held:]
    return {
        "train": Items(train.images[rest], train.labels[rest]),
        "val": Items(train.images[val], train.labels[val]),
        "test": test,
    }


def _read(data: Path, part: str) -> Items:
    images = read_idx(data / f"{part}-images-idx3-ubyte.gz").numpy()
    return Items(images, read_idx(data / f"{part}-labels-idx1-ubyte.gz").numpy())


def make_canvas(items: Items, seed: int, split: str, number: int) -> Picture:
    """The picture and the labels of a canvas."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    scene = Scene.on(_texture(rng))
    kinds = np.repeat([True, False], [rng.integers(*ITEMS, endpoint=True), rng.integers(*FRAGMENTS, endpoint=True)])
    for is_item in rng.permutation(kinds):
        scene.add(partial(_piece, items, rng, is_item=bool(is_item)), rng)
    shade = _smooth(rng, 2) * 0.25 + 0.9
    noisy = scene.light * shade + rng.normal(0, rng.uniform(1, 5), shade.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), scene.mask


def _piece(items: Items, rng: Generator, *, is_item: bool) -> Piece:
    index = rng.integers(len(items.labels))
    item = items.images[index]
    width = round(item.shape[0] * rng.uniform(*SCALE))
    shape = np.asarray(Image.fromarray((item > 0).astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(3)))
    if not is_item:
        shape = _fragment(shape, rng)
    opacity = _resized(shape, width) / 255
    light = _resized(np.where(shape, item, 0), width) * rng.uniform(0.4, 1) + opacity * rng.uniform(0, 60)
    return Piece(light, opacity, int(items.labels[index]) + 1 if is_item else 0)


def _fragment(shape: Bytes, rng: Generator) -> Bytes:
    """The part of a shape within a random quadrilateral: at most ``FRAGMENT`` of it, but something."""
    whole = np.count_nonzero(shape)
    while True:
        image = Image.new("L", shape.shape[::-1])
        angles = np.sort(rng.uniform(0, 2 * np.pi, 4))
        reach, center = rng.uniform(4, 14, 4), rng.uniform(6, 22, 2)
        corners = [
            (float(center[0] + r * np.cos(a)), float(center[1] + r * np.sin(a)))
            for r, a in zip(reach, angles, strict=True)
        ]
        ImageDraw.Draw(image).polygon(corners, fill=255)
        part = np.minimum(shape, np.asarray(image))
        if 0.1 * whole < np.count_nonzero(part) <= FRAGMENT * whole:
            return part


def _texture(rng: Generator) -> Floats:
    """A smooth background, brightness 0 to 255, of waves of three widths."""
    light = np.full((SIZE, SIZE), rng.uniform(20, 150), np.float32)
    for cells, most in ((3, 60), (8, 40), (24, 25)):
        light += (_smooth(rng, cells) - 0.5) * rng.uniform(0, 2 * most)
    return np.clip(light, 0, 255)


def _smooth(rng: Generator, cells: int) -> Floats:
    """Random values between 0 and 1 at ``cells`` places each way, cubic in between."""
    return _resized(rng.random((cells, cells), np.float32), SIZE, Image.Resampling.BICUBIC)


def _resized(values: NDArray[np.generic], width: int, way: Image.Resampling = Image.Resampling.BILINEAR) -> Floats:
    """Values on a square of another width; Pillow smooths what it reduces."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, width), way))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the full Fashion-MNIST")
    parser.add_argument("out", type=Path, help="folder to write")
    for split, count in zip(SPLITS, (6000, 500, 1000), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"number of canvases in {split}")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    given = parser.parse_args()
    items = read_items(given.data, given.seed)
    counts = {split: getattr(given, split) for split in SPLITS if getattr(given, split)}
    write_splits(given.out, CLASSES, counts, lambda split, number: make_canvas(items[split], given.seed, split, number))


if __name__ == "__main__":
    try:
        main()
    except DaukitError as error:
        sys.exit(str(error))
