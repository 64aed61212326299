"""Cityscapes (Cordts et al., 2016) with its fine annotations, of which 19 classes count."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from daukit.datasets.base import DatasetInfo, Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.listing import by_stem, folders_in
from daukit.datasets.pairs import PairedPictures, matched
from daukit.errors import DataError
from daukit.pictures import read_mask

CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The id of each class in ``labelIds``."""
IDS = 34
"""Number of ids, of which those that are in no class are ignored."""
IGNORED = 255

_LICENSE_PLATE = 255  # the id -1, in eight bits
_SPLITS: dict[Split, str] = {"train": "train", "val": "val", "test": "val"}
_PICTURE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def load_cityscapes(
    folder: str | Path, split: Split, classes: str | Path | None = None, *, channel_order: str = "rgb"
) -> PairedPictures:
    """Open the pictures of all cities in ``train`` or ``val``; none is decoded before it is needed.

    They are ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``, with ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

    Args:
        folder: with ``leftImg8bit`` and ``gtFine``.
        split: ``"train"``, or ``"val"`` or ``"test"``, which are both ``val``.
        classes: text file with the name of each of the 19 classes on a line; default: those of ``CLASSES``.
        channel_order: how to read pictures.

    Raises:
        DataError: something is missing, or a picture has no partner.
    """
    folder, part = Path(folder), of_split(_SPLITS, split, folder)
    pictures, masks = folder / "leftImg8bit" / part, folder / "gtFine" / part
    cities, drawn = folders_in(pictures), folders_in(masks)
    if not cities:
        raise DataError(f"{pictures}: there is no folder of a city in it")
    alone = next((masks / city for city in drawn if city not in set(cities)), None)
    if alone is not None:
        raise DataError(f"{alone}: has no partner: {pictures} has no folder called {alone.name}")
    pairs = [
        pair
        for city in cities
        for pair in matched(by_stem(pictures / city, (_PICTURE,)), by_stem(masks / city, (_MASK,)))
    ]
    names = tuple(CLASSES) if classes is None else read_class_names(classes, len(CLASSES))
    info = DatasetInfo(len(names), names, IGNORED, sizes_differ=True)
    return PairedPictures(folder, tuple(pairs), "mask", info, channel_order, read_label_ids)


def read_label_ids(path: Path) -> Tensor:
    """Read the class of each pixel, (H, W) uint8, from a mask of ids.

    Raises:
        DataError: it cannot be read, or has a value that is no id.
    """
    ids = read_mask(path)
    unknown = ids[(ids >= IDS) & (ids != _LICENSE_PLATE)]
    if len(unknown):
        raise DataError(
            f"{path}: has a pixel of id {int(unknown[0])}; the ids of Cityscapes are 0 to {IDS - 1}, and "
            f"{_LICENSE_PLATE} for license plates"
        )
    table = torch.full((256,), IGNORED, dtype=torch.uint8)
    table[list(CLASSES.values())] = torch.arange(len(CLASSES), dtype=torch.uint8)
    return table[ids.int()]
