"""Write made pictures as a folder of pictures with masks: the layout ``masks`` of ``daukit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daukit.files import new_folder
from daukit.plots.palette import class_colors

Bytes = NDArray[np.uint8]
Picture = tuple[Bytes, Bytes]
"""A picture, (h, w) or (h, w, 3), and the classes of its pixels, (h, w)."""


def write_splits(
    out: Path, classes: Sequence[str], counts: Mapping[str, int], picture: Callable[[str, int], Picture]
) -> None:
    """Write ``counts[split]`` pictures of each split into a new folder, which is there when all of them are.

    Args:
        out: the folder.
        classes: names, by the value in the mask.
        counts: number of pictures, by split.
        picture: makes the n-th of a split.

    Raises:
        OutputError: the name is taken, or the folder cannot be written.
    """
    palette = [value for color in class_colors(len(classes)) for value in color]
    with new_folder(out) as folder:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        for split, count in counts.items():
            for kind in ("images", "masks"):
                (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels, labels = picture(split, number)
                mask = Image.fromarray(labels)
                mask.putpalette(palette)
                Image.fromarray(pixels).save(folder / split / "images" / f"{number:05}.png")
                mask.save(folder / split / "masks" / f"{number:05}.png", optimize=True)
            print(f"{split}: {count} pictures", flush=True)
