"""Draw pictures above their masks, or blurred ones above sharp ones: ``python contact_sheet.py FOLDER OUT.png``.

FOLDER is a part of a data set, as ``data/canvases/test``. Its first pictures are drawn in the order of their names.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

from daukit.errors import DataError, DaukitError
from daukit.files import write_atomic

KINDS = (("images", "masks"), ("blurred", "sharp"))


def contact_sheet(folder: Path, columns: int, rows: int, zoom: int) -> Image.Image:
    """A sheet of ``columns`` by ``rows`` pairs, each pixel ``zoom`` wide.

    Raises:
        DataError: the folder has no pairs.
    """
    kinds = next((kinds for kinds in KINDS if all((folder / kind).is_dir() for kind in kinds)), None)
    if kinds is None:
        raise DataError(
            f"{folder}: has neither images beside masks nor blurred beside sharp; name one part of a data set"
        )
    names = sorted(path.name for path in (folder / kinds[0]).iterdir())[: columns * rows]
    if not names:
        raise DataError(f"{folder / kinds[0]}: is empty")
    with Image.open(folder / kinds[0] / names[0]) as first:
        width, height = (length * zoom for length in first.size)
    sheet = Image.new("RGB", (width * min(columns, len(names)), 2 * height * -(-len(names) // columns)))
    for number, name in enumerate(names):
        for below, kind in enumerate(kinds):
            with Image.open(folder / kind / name) as picture:
                large = picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(large, (number % columns * width, (2 * (number // columns) + below) * height))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a part of a data set")
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--columns", type=int, default=8, help="pairs beside one another")
    parser.add_argument("--rows", type=int, default=3, help="rows of pairs")
    parser.add_argument("--zoom", type=int, default=1, help="pixels for a pixel, each way")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    given = parser.parse_args()
    content = io.BytesIO()
    contact_sheet(given.folder, given.columns, given.rows, given.zoom).save(content, "PNG", optimize=True)
    write_atomic(given.out, content.getvalue(), overwrite=given.overwrite)


if __name__ == "__main__":
    try:
        main()
    except DaukitError as error:
        sys.exit(str(error))
