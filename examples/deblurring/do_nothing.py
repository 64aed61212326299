"""Print PSNR and SSIM of blurred pictures as they are, in ``train`` and ``test``: ``python do_nothing.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from daukit.datasets import Split
from daukit.datasets.folders import load_blurred
from daukit.errors import DaukitError
from daukit.tasks.deblurring import DeblurringMetrics

SPLITS: tuple[Split, ...] = ("train", "test")


def main(folder: Path) -> None:
    print("| split | pairs | PSNR, dB | SSIM |\n|---|--:|--:|--:|")
    for split in SPLITS:
        pairs, metrics = load_blurred(folder, split), DeblurringMetrics()
        for index in range(len(pairs)):
            pair = pairs.batch(slice(index, index + 1))
            metrics.add(pair.images / 255, pair.targets)
        found = metrics.result()
        print(f"| {split} | {found.images} | {found.psnr:.2f} | {found.ssim:.4f} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except DaukitError as error:
        sys.exit(str(error))
