"""Cut the first 2,000 test images and labels of Fashion-MNIST: ``python make_sample.py FOLDER_OF_FASHION_MNIST``.

It wrote the two .gz files beside it. Nothing is chosen: they are the first images of the test set, in order.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

COUNT = 2000


def main(source: Path, target: Path) -> None:
    for name, header, item in (("t10k-images-idx3-ubyte.gz", 16, 28 * 28), ("t10k-labels-idx1-ubyte.gz", 8, 1)):
        data = gzip.decompress((source / name).read_bytes())
        sample = data[:4] + COUNT.to_bytes(4, "big") + data[8 : header + COUNT * item]
        (target / name).write_bytes(gzip.compress(sample, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
