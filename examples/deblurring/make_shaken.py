"""Shake the camera under photographs, for networks that undo it: ``python make_shaken.py PHOTOGRAPHS OUT``.

PHOTOGRAPHS is a folder of them; ``make data`` takes 106 from Debian's package gcompris-qt-data. Many are under CC BY-SA
4.0, see the files README beside them, so what this writes stays with you or keeps that licence. OUT becomes a folder of
blurred and sharp pictures, no photograph in two of ``train``, ``val`` and ``test``.

Photographs are halved, which also takes back some of their compression and sharpening. Of each, squares of 256 pixels
are cut out. While the shutter is open the camera goes along a random path (after Boracchi and Foi, 2012): it is inert,
trembles, is pulled back to where it was aimed, and now and then jerks. In half of the pictures it also rolls about its
axis, so that blur varies over the picture. That is a convolution for each of nine places, blended linearly in between,
in linear light (gamma 2.2); then come noise and rounding.

Each picture depends on the seed, the photograph's place in the list of names, and its own number. The same versions of
numpy and Pillow write the same bytes, but for the last bit of the Fourier transform on another processor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from daukit.errors import DataError, DaukitError
from daukit.files import new_folder

SIZE = 256
REACH = 16
"""Pixels that light may come from, each way; pictures are cut with such a margin."""
SHARES = {"train": 0.75, "val": 0.1, "test": 0.15}
STEPS = 500
EXTENT, ROLL = (1.5, 7.5), (1.5, 4.0)
"""Pixels that the camera goes from the middle of its path at most; and those that it rolls at a picture's corner."""
NOISE = (0.5, 2.0)
"""Standard deviation, of 255."""
GAMMA = 2.2
PLACES = 4
"""Squares among which that with most detail is taken: much of many photographs is out of focus."""

Floats = NDArray[np.float64]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A blurred and a sharp picture, (256, 256, 3)."""


def read_photograph(path: Path) -> Floats:
    """A photograph of half its size, in linear light from 0 to 1, (h, w, 3)."""
    with _open(path) as image:
        encoded = np.asarray(image.convert("RGB"))
    height, width = (length // 2 for length in encoded.shape[:2])
    light = (np.arange(256) / 255.0) ** GAMMA
    return light[encoded[: height * 2, : width * 2]].reshape(height, 2, width, 2, 3).mean((1, 3))


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:  # which is also what Pillow raises where a file is no picture
        raise DataError(f"{path}: cannot be read as a picture ({error})") from None


def encode(light: Floats) -> Floats:
    """Brightness from 0 to 255, not rounded."""
    return 255 * np.clip(light, 0, 1) ** (1 / GAMMA)


def make_pair(photograph: Floats, rng: Generator) -> Pair:
    """Cut a square out of a photograph, and shake the camera over it."""
    light = _square(photograph, rng)
    path, roll = camera_path(rng) * rng.uniform(*EXTENT), np.zeros(STEPS)
    if rng.random() < 0.5:
        roll = camera_path(rng).real * rng.uniform(*ROLL)
    noisy = encode(shake(light, path, roll)) + rng.normal(0, rng.uniform(*NOISE), (SIZE, SIZE, 3))
    return _rounded(noisy), _rounded(encode(light[REACH:-REACH, REACH:-REACH]))


def _rounded(values: Floats) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _square(photograph: Floats, rng: Generator) -> Floats:
    """The square of most detail among a few, with its margin."""
    whole = SIZE + 2 * REACH
    ends = [length - whole for length in photograph.shape[:2]]
    corners = rng.integers(0, ends, (PLACES, 2), endpoint=True)
    squares = [photograph[top : top + whole, left : left + whole] for top, left in corners]
    return max(squares, key=_detail)


def _detail(light: Floats) -> float:
    brightness = encode(light).mean(2)
    return float(np.abs(np.diff(brightness, axis=0)).mean() + np.abs(np.diff(brightness, axis=1)).mean())


def camera_path(rng: Generator) -> NDArray[np.complex128]:
    """Where the camera is, in ``STEPS`` steps of equal time: its mean is 0, and its furthest place is 1 from there.

    Imaginary parts point down. The camera keeps its speed; its direction is changed by trembling, by a pull to the
    start, and by jerks that turn it around.
    """
    tremble, pull, jerk = 10 ** rng.uniform(-2, 0), rng.uniform(0, 0.01), rng.uniform(0, 0.01)
    kicks = tremble * (rng.normal(size=STEPS) + 1j * rng.normal(size=STEPS))
    turns = np.where(rng.random(STEPS) < jerk, -2 * np.exp(1j * rng.uniform(-0.5, 0.5, STEPS)), 0)
    place, velocity = 0j, np.exp(2j * np.pi * rng.random())
    path = np.empty(STEPS, np.complex128)
    for step in range(STEPS):
        path[step] = place
        velocity += kicks[step] + turns[step] * velocity - pull * place
        velocity /= abs(velocity)
        place += velocity
    path -= path.mean()
    return path / np.abs(path).max()


def shake(light: Floats, path: NDArray[np.complex128], roll: Floats) -> Floats:
    """Blur a picture with its margin, (h, w, 3); the result has no margin.

    Args:
        light: linear, from 0 to 1.
        path: of the camera, in pixels.
        roll: about the middle of the picture, in pixels at its corners.
    """
    height, width = light.shape[0] - 2 * REACH, light.shape[1] - 2 * REACH
    spectrum, ends = np.fft.rfft2(light, axes=(0, 1)), (-1.0, 0.0, 1.0)
    blurred = np.zeros((height, width, 3))
    for y, rows in zip(ends, _hats(height), strict=True):
        for x, columns in zip(ends, _hats(width), strict=True):
            kernel = kernel_of(path + roll * 1j * (x + 1j * y) / abs(1 + 1j))
            response = np.fft.rfft2(kernel, light.shape[:2])[:, :, None]
            whole = np.fft.irfft2(spectrum * response, light.shape[:2], axes=(0, 1))
            blurred += rows[:, None, None] * columns[None, :, None] * whole[2 * REACH :, 2 * REACH :]
    return blurred


def _hats(length: int) -> Floats:
    """Weights of the first, the middle and the last of ``length`` places, linear in between: (3, length)."""
    return np.stack([np.interp(np.linspace(-1, 1, length), (-1, 0, 1), one) for one in np.eye(3)])


def kernel_of(path: NDArray[np.complex128]) -> Floats:
    """The share of time that the camera is at each pixel, linear in between: (2 REACH + 1, 2 REACH + 1), sum 1.

    Raises:
        ValueError: the path leaves the kernel.
    """
    if np.abs(np.stack([path.real, path.imag])).max() > REACH - 1:
        raise ValueError(f"the path must stay within {REACH - 1} pixels")
    kernel = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    y, x = path.imag + REACH, path.real + REACH
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for down, beside in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = (1 - np.abs(y - top - down)) * (1 - np.abs(x - left - beside))
        np.add.at(kernel, (top + down, left + beside), share / len(path))
    return kernel


def split_photographs(paths: list[Path], seed: int) -> dict[str, list[int]]:
    """Numbers of photographs by split."""
    order = np.random.default_rng(seed).permutation(len(paths)).tolist()
    held = {split: max(round(len(order) * SHARES[split]), 1) for split in ("test", "val")}
    test, val = held["test"], held["test"] + held["val"]
    return {"train": order[val:], "val": order[test:val], "test": order[:test]}


def find_photographs(folder: Path) -> list[Path]:
    """Photographs that are large enough, by name.

    Raises:
        DataError: there are too few.
    """
    found = []
    for path in sorted(folder.glob("*.webp")):
        with _open(path) as image:
            if min(image.size) // 2 >= SIZE + 2 * REACH:
                found.append(path)
    if len(found) < 3:
        raise DataError(f"{folder}: has {len(found)} WebP files of {2 * SIZE + 4 * REACH} pixels or more; 3 are needed")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of WebP files")
    parser.add_argument("out", type=Path, help="folder to write")
    for split, count in zip(SHARES, (400, 40, 60), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"number of pairs in {split}")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    given = parser.parse_args()
    paths = find_photographs(given.photographs)
    with new_folder(given.out) as folder:
        for split, members in split_photographs(paths, given.seed).items():
            for kind in ("blurred", "sharp"):
                (folder / split / kind).mkdir(parents=True)
            count = getattr(given, split)
            for place, member in enumerate(members[:count]):
                photograph = read_photograph(paths[member])
                for number in range(place, count, len(members)):
                    pair = make_pair(photograph, np.random.default_rng([given.seed, member, number]))
                    for kind, picture in zip(("blurred", "sharp"), pair, strict=True):
                        Image.fromarray(picture).save(folder / split / kind / f"{number:04}-{paths[member].stem}.png")
            print(f"{split}: {count} pairs of {len(members)} photographs", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DaukitError as error:
        sys.exit(str(error))
