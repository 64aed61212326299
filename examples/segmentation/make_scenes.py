"""Paste photographed things on photographs, to segment them: ``python make_scenes.py STAMPS PHOTOGRAPHS OUT``.

STAMPS is the folder of stamps of Debian's package tuxpaint-stamps-default (GPL-2 or later, some of them under licences
named there), PHOTOGRAPHS that of gcompris-qt-data's photographs (CC BY-SA 4.0 for some); ``make data`` fetches both.
Both are share-alike, so what this writes stays with you or keeps those licences. OUT becomes a folder of pictures with
masks, no thing and no photograph in two of ``train``, ``val`` and ``test``.

A scene is in colour, 96 pixels wide, and has one to three things, 28 to 72 pixels long and some mirrored, one over the
other on a part of a photograph of a monument. With another ``--size`` everything is larger or smaller in proportion.
The things are 186 stamps of eight classes, all but drawn ones and small ones; their opacity, drawn by hand, is the
mask. Of each at least half stays in sight. Photographs of animals are no backgrounds here, because animals would then
be of two classes; some trees stay. Light and noise vary.

Each scene depends on the seed, its split and its number alone. The same versions of numpy and Pillow write the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pasting import Floats, Piece, Scene
from PIL import Image
from writing import Picture, write_splits

from daukit.errors import DataError, DaukitError

SIZE = 96
"""Height and width, unless they are asked for."""
SPLITS = ("train", "val", "test")
HELD = {"test": 0.2, "val": 0.15}
"""Shares of the things of each class, and of photographs; the rest is for training."""
THINGS = (1, 3)
LENGTH = (28 / 96, 72 / 96)
"""Of things, as a share of the scene's width."""
PLACES = {
    "bird": ("animals/birds",),
    "fish": ("animals/fish",),
    "mammal": ("animals/mammals", "animals/marsupials"),
    "insect": ("animals/insects",),
    "fruit or vegetable": ("food/fruit", "food/vegetables"),
    "flower": ("plants/flowers",),
    "tree": ("plants/trees",),
    "vehicle": ("vehicles", "military/vehicles"),
}
"""Folders of stamps by class."""
DRAWN = ("cartoon", "toys", "plastic", "mirror")
LEAST = 3000
"""Opaque pixels of a stamp that is taken."""


@dataclass(frozen=True)
class Parts:
    """What scenes of a split are made of.

    Attributes:
        things: stamps, by class.
        photographs: backgrounds.
    """

    things: Sequence[Sequence[Image.Image]]
    photographs: Sequence[Image.Image]


def find_things(stamps: Path) -> dict[str, list[Path]]:
    """Stamps to take, by class.

    Raises:
        DataError: a class has fewer than three.
    """
    found = {}
    for name, places in PLACES.items():
        paths = [path for place in places for path in sorted((stamps / place).rglob("*.png"))]
        photographed = [path for path in paths if not any(word in path.as_posix() for word in DRAWN)]
        found[name] = [path for path in photographed if _opaque(path) >= LEAST]
        if len(found[name]) < len(SPLITS):
            raise DataError(f"{stamps}: has {len(found[name])} of {name}; {len(SPLITS)} are needed")
    return found


def _opaque(path: Path) -> int:
    return int((np.asarray(_read(path, "RGBA"))[..., 3] > 128).sum())


def _read(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except OSError as error:  # which is also what Pillow raises where a file is no picture
        raise DataError(f"{path}: cannot be read as a picture ({error})") from None


def split_paths(paths: Sequence[Path], rng: Generator) -> dict[str, list[Path]]:
    """Paths by split, at least one in each."""
    order, parts, start = [paths[index] for index in rng.permutation(len(paths))], {}, 0
    for split, share in HELD.items():
        end = start + max(round(share * len(paths)), 1)
        parts[split], start = order[start:end], end
    return parts | {"train": order[start:]}


def read_parts(things: dict[str, list[Path]], photographs: list[Path], seed: int) -> dict[str, Parts]:
    """The parts of each split, decoded."""
    rng = np.random.default_rng(seed)
    by_class = [split_paths(paths, rng) for paths in things.values()]
    backgrounds = split_paths(photographs, rng)
    return {
        split: Parts(
            [[_cut_out(_read(path, "RGBA")) for path in parts[split]] for parts in by_class],
            [_read(path, "RGB") for path in backgrounds[split]],
        )
        for split in SPLITS
    }


def _cut_out(stamp: Image.Image) -> Image.Image:
    """A stamp without its transparent border."""
    return stamp.crop(stamp.getchannel("A").point(lambda opacity: 255 * (opacity > 128)).getbbox())


def make_scene(parts: Parts, seed: int, split: str, number: int, size: int = SIZE) -> Picture:
    """The picture and the labels of a scene."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    scene = Scene.on(_background(parts.photographs, rng, size))
    for _ in range(rng.integers(*THINGS, endpoint=True)):
        scene.add(partial(_thing, parts.things, rng, size), rng)
    noisy = scene.light * rng.uniform(0.8, 1.15) + rng.normal(0, rng.uniform(1, 4), scene.light.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), scene.mask


def _background(photographs: Sequence[Image.Image], rng: Generator, size: int) -> Floats:
    """A square of a photograph, a third of its shorter side or more."""
    photograph = photographs[rng.integers(len(photographs))]
    side = rng.uniform(1 / 3, 1) * min(photograph.size)
    left, top = (rng.uniform(0, length - side) for length in photograph.size)
    square = photograph.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return np.asarray(square, np.float32)


def _thing(things: Sequence[Sequence[Image.Image]], rng: Generator, size: int) -> Piece:
    label = int(rng.integers(len(things)))
    stamp = things[label][rng.integers(len(things[label]))]
    scale = rng.uniform(*LENGTH) * size / max(stamp.size)
    small = stamp.resize([max(round(length * scale), 1) for length in stamp.size], Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = np.asarray(small, np.float32)
    opacity = values[..., 3] / 255
    return Piece(values[..., :3] * opacity[..., None] * rng.uniform(0.75, 1.2), opacity, label + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="folder of Tux Paint's stamps")
    parser.add_argument("photographs", type=Path, help="folder of WebP files")
    parser.add_argument("out", type=Path, help="folder to write")
    for split, count in zip(SPLITS, (4000, 400, 800), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"number of scenes in {split}")
    parser.add_argument("--size", type=int, default=SIZE, help="height and width of a scene in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    given = parser.parse_args()
    things, photographs = find_things(given.stamps), sorted(given.photographs.glob("explore_monuments-*.webp"))
    if len(photographs) < len(SPLITS):
        raise DataError(f"{given.photographs}: has {len(photographs)} photographs of monuments; 3 are needed")
    parts = read_parts(things, photographs, given.seed)
    for split in SPLITS:
        numbers = [f"{name} {len(of)}" for name, of in zip(things, parts[split].things, strict=True)]
        print(f"{split}: {', '.join(numbers)}; photographs {len(parts[split].photographs)}")
    counts = {split: getattr(given, split) for split in SPLITS if getattr(given, split)}

    def make(split: str, number: int) -> Picture:
        return make_scene(parts[split], given.seed, split, number, given.size)

    write_splits(given.out, ("background", *things), counts, make)


if __name__ == "__main__":
    try:
        main()
    except DaukitError as error:
        sys.exit(str(error))
