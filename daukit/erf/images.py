"""Pictures of a folder as a network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from daukit.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")

_MODES = {"gray": "L", "rgb": "RGB", "bgr": "RGB"}


def load_pictures(folder: Path, number: int, size: tuple[int, int], channel_order: str, seed: int) -> Tensor:
    """Read ``number`` of the PNG and JPEG files in a folder and the folders in it, or all where there are fewer.

    Each is scaled so that it just covers ``size``, and its middle is taken.

    Args:
        folder: where they are.
        number: how many to draw.
        size: (height, width) to give them.
        channel_order: ``"gray"``, ``"rgb"`` or ``"bgr"``.
        seed: of the draw.

    Returns:
        (number, C, *size) uint8.

    Raises:
        DataError: there is no such folder, no picture in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: there are neither IDX files nor pictures ({', '.join(SUFFIXES)}) in it")
    chosen = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))[:number].tolist()
    return torch.stack([_read(paths[i], size, channel_order) for i in chosen])


def _read(path: Path, size: tuple[int, int], channel_order: str) -> Tensor:
    height, width = size
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert(_MODES[channel_order])
            fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as a picture ({reason}); mend it or take it out") from None
    pixels = torch.from_numpy(np.array(fitted))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, W)
    return pixels.flip(0) if channel_order == "bgr" else pixels
