"""Print how much of a folder of pictures with masks each class covers: ``python describe.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")


def main(folder: Path) -> None:
    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    masks = {split: sorted((folder / split / "masks").glob("*.png")) for split in SPLITS if (folder / split).is_dir()}
    pixels = {split: np.zeros(len(names), np.int64) for split in masks}
    for split, paths in masks.items():
        for path in paths:
            with Image.open(path) as mask:
                pixels[split] += np.bincount(np.asarray(mask).ravel(), minlength=len(names))
    print("| class |", " | ".join(f"{split}, {len(paths):,} pictures" for split, paths in masks.items()), "|")
    print("|---|" + "--:|" * len(masks))
    for label, name in enumerate(names):
        shares = " | ".join(f"{100 * count[label] / count.sum():.2f} %" for count in pixels.values())
        print(f"| {name} | {shares} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
