"""Pictures of a folder as a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from daukit.errors import DataError
from daukit.pictures import SUFFIXES, is_picture, pixels_of, read_picture


def load_pictures(
    folder: Path,
    number: int,
    size: tuple[int, int],
    channel_order: str,
    seed: int,
    *,
    only: Sequence[Path] | None = None,
) -> Tensor:
    """Read ``number`` of the PNG and JPEG files in a folder and the folders in it, or all where there are fewer.

    Each is turned upright as its EXIF data say, scaled so that it just covers ``size``, and its middle is taken. Of
    animations the first frame counts, of transparent pictures the colours: opacity is left out, as if all were opaque.
    Hidden files are passed over.

    Args:
        folder: where they are.
        number: how many to draw.
        size: (height, width) to give them.
        channel_order: ``"gray"``, ``"rgb"`` or ``"bgr"``.
        seed: of the draw.
        only: draw of these files of the folder.

    Returns:
        (number, C, *size) uint8.

    Raises:
        DataError: there is no such folder, no picture in it, or one that cannot be read, or has more than 8 bits a
            channel and is not of 16 bits and grey.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted((path for path in folder.rglob("*") if is_picture(path, folder)) if only is None else only)
    if not paths:
        raise DataError(f"{folder}: there are neither IDX files nor pictures ({', '.join(SUFFIXES)}) in it")
    chosen = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))[:number].tolist()
    return torch.stack([_read(paths[i], size, channel_order) for i in chosen])


def _read(path: Path, size: tuple[int, int], channel_order: str) -> Tensor:
    height, width = size
    picture = ImageOps.fit(read_picture(path, channel_order), (width, height), Image.Resampling.BILINEAR)
    return pixels_of(picture, channel_order)
