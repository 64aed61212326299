"""Pictures in files, read by Pillow: PNG and JPEG."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from daukit.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")

_MODES = {"gray": "L", "rgb": "RGB", "bgr": "RGB"}


_DECODERS = r"PIL\.|scipy\.|daukit\.(pictures|datasets)"
_lock = threading.Lock()
# Plain globals, as the filters of warnings are the process's too.
_readers = 0
_filter: Any = None


@contextmanager
def hushed() -> Iterator[None]:
    """Silence the warnings of decoders: a picture can be read or it cannot. Other warnings are as before.

    ``warnings.catch_warnings`` would put back the filters of its start, which is wrong where several threads read.
    """
    global _readers, _filter
    with _lock:
        if not _readers:
            warnings.filterwarnings("ignore", module=_DECODERS)
            _filter = warnings.filters[0]
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                with suppress(ValueError):  # somebody has put back other filters meanwhile
                    warnings.filters.remove(_filter)  # type: ignore[attr-defined]  # a list, whatever typeshed says


def is_picture(path: Path, folder: Path) -> bool:
    """Check a name; hidden files, macOS's ``._`` companions among them, are not meant to be used."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir()


def check_picture(path: Path) -> None:
    """Raise ``DataError`` if the head of a file says that it is no picture, or one that ``read_picture`` refuses."""
    _decoded(path, _wide, lambda file: file)


def read_picture(path: Path, channel_order: str) -> Image.Image:
    """Read a picture, upright as its EXIF data say, with 8 bits a channel; ``"bgr"`` is read as RGB.

    Of animations the first frame counts, of transparent pictures the colours: opacity is left out, as if all were
    opaque.

    Raises:
        DataError: it cannot be read, or has more than 8 bits a channel and is not of 16 bits and grey.
    """
    mode = _MODES[channel_order]
    return _decoded(path, _wide, lambda file: _eight_bits(ImageOps.exif_transpose(file)).convert(mode))


def pixels_of(picture: Image.Image, channel_order: str) -> Tensor:
    """The pixels of what ``read_picture`` read: (C, H, W) uint8."""
    pixels = torch.from_numpy(np.array(picture))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, W)
    return pixels.flip(0) if channel_order == "bgr" else pixels


def read_mask(path: Path) -> Tensor:
    """Read the label of each pixel, (H, W) uint8: the places in a palette, or grey levels.

    Raises:
        DataError: it cannot be read, or has colours or more than 8 bits.
    """
    return torch.from_numpy(np.array(_decoded(path, _no_labels, ImageOps.exif_transpose)))


def _decoded(
    path: Path, refuse: Callable[[Path, Image.Image], str | None], decode: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """What ``decode`` makes of a file, unless ``refuse`` says what is wrong with it."""
    try:
        with hushed(), Image.open(path) as file:
            wrong = refuse(path, file)
            if wrong is None:
                return decode(file)
    except Exception as error:  # decoders raise errors of any type at damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as a picture ({reason}); mend it or take it out") from error
    raise DataError(f"{path}: {wrong}; convert it")


def _wide(path: Path, image: Image.Image) -> str | None:
    """Name the kind of pixels that would lose their range or their lower half, as Pillow keeps 8 bits of colours."""
    with path.open("rb") as file:
        header = file.read(26)
    wide = f"pixels of mode {image.mode}" if image.mode in ("I", "F") else None
    if image.format == "PNG" and header[24] == 16:
        wide = None if header[25] == 0 else f"16 bits a channel (mode {image.mode})"
    return None if wide is None else f"has {wide}, and pictures have 8 bits a channel, or 16 if grey"


def _no_labels(path: Path, image: Image.Image) -> str | None:
    """Tell why the pixels of a picture are no labels."""
    kind = f"{image.format} of mode {image.mode}"
    if image.format == "PNG" and image.mode in ("P", "L"):
        with path.open("rb") as file:
            bits = file.read(25)[24]
        if image.mode == "P" or bits == 8:
            return None
        kind += f" and {bits} bits"  # which Pillow spreads from black to white
    return f"is a {kind}, and masks are PNG files, grey with 8 bits or with a palette"


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey levels scaled by 1 / 257, so that white is white; palettes as colours, without their transparency."""
    if image.mode.startswith("I"):
        levels = np.array(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
