"""Pictures of any size as images of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

_MARGIN = 8 / 7  # 256 for crops of 224, as ResNets are measured
_ALEXNET = 227  # reads 3 pixels more than the 224 that it is said to, of pictures of the same size


class View(Protocol):
    """How a picture becomes an image of one size."""

    def __call__(self, picture: Image.Image, index: int) -> Image.Image:
        """The image; ``index`` is the picture's place in its data set."""


@dataclass(frozen=True)
class CenterCrop:
    """The middle of a picture whose shorter side was resized: what networks are measured on.

    Attributes:
        size: (height, width) of the middle.
    """

    size: tuple[int, int]

    def __call__(self, picture: Image.Image, index: int) -> Image.Image:
        """The middle; it is the same for every index."""
        picture = resized(picture, shorter_side(self.size))
        height, width = self.size
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))


def shorter_side(size: tuple[int, int]) -> int:
    """The shorter side of pictures that crops of (height, width) are taken from: 256 for 224 and for 227."""
    return round(_MARGIN * (max(size) if max(size) != _ALEXNET else 224))


def resized(picture: Image.Image, side: int) -> Image.Image:
    """A picture resized, so that its shorter side is ``side`` and its proportions stay."""
    scale = side / min(picture.size)
    width, height = (max(side, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)
