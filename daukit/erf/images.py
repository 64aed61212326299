"""Pictures of a folder as a network's input."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from daukit.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")

_MODES = {"gray": "L", "rgb": "RGB", "bgr": "RGB"}


def load_pictures(folder: Path, number: int, size: tuple[int, int], channel_order: str, seed: int) -> Tensor:
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

    Returns:
        (number, C, *size) uint8.

    Raises:
        DataError: there is no such folder, no picture in it, or one that cannot be read, or has more than 8 bits a
            channel and is not of 16 bits and grey.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path, folder))
    if not paths:
        raise DataError(f"{folder}: there are neither IDX files nor pictures ({', '.join(SUFFIXES)}) in it")
    chosen = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))[:number].tolist()
    return torch.stack([_read(paths[i], size, channel_order) for i in chosen])


def _is_picture(path: Path, folder: Path) -> bool:
    """Check a name; hidden files, macOS's ``._`` companions among them, are not meant to be used."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir()


def _read(path: Path, size: tuple[int, int], channel_order: str) -> Tensor:
    height, width = size
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")  # a picture can be read or it cannot
            wide = _wide(path, file)
            if wide is None:
                plain = _eight_bits(ImageOps.exif_transpose(file)).convert(_MODES[channel_order])
                fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # decoders raise errors of any type at damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as a picture ({reason}); mend it or take it out") from error
    if wide is not None:
        raise DataError(f"{path}: has {wide}, and pictures have 8 bits a channel, or 16 if grey; convert it")
    pixels = torch.from_numpy(np.array(fitted))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, W)
    return pixels.flip(0) if channel_order == "bgr" else pixels


def _wide(path: Path, image: Image.Image) -> str | None:
    """Name the kind of pixels that would lose their range or their lower half, as Pillow keeps 8 bits of colours."""
    with path.open("rb") as file:
        header = file.read(26)
    if image.format == "PNG" and header[24] == 16:
        return None if header[25] == 0 else f"16 bits a channel (mode {image.mode})"
    return f"pixels of mode {image.mode}" if image.mode in ("I", "F") else None


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey levels scaled by 1 / 257, so that white is white; palettes as colours, without their transparency."""
    if image.mode.startswith("I"):
        levels = np.array(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
