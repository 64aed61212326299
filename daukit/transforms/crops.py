"""Random crops of an image together with its target: a mask of labels, or a sharp image."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.datasets import Batch
from daukit.errors import DataError


@dataclass(frozen=True)
class ScaleAndCrop:
    """Scale an image and the label of each pixel, cut a window out of both, and mirror them (section 6.2).

    Where the image is smaller than the window, it lies in its upper left corner; the rest has the mean colour of the
    image and the label that is ignored.

    Attributes:
        size: height and width of the window.
        scale: bounds of the factor of the size, which is uniform between them.
        mirror: mirror left to right with probability 1/2.
        ignore_index: label of pixels beyond the image.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: bool = False
    ignore_index: int = 255

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The window of one image, (1, C, H, W), and its labels, (1, H, W), both uint8.

        ``generator``, on the CPU, is the source of chance.
        """
        share, mirrored = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        low, high = self.scale
        images, labels = _scaled(batch, low + (high - low) * share)
        height, width = self.size
        beyond = (0, max(0, width - images.shape[-1]), 0, max(0, height - images.shape[-2]))
        # In float64, in which no order of the sum makes a difference.
        mean = images.mean((2, 3), keepdim=True, dtype=torch.float64).round().float()
        images = (F.pad(images.float() - mean, beyond) + mean).to(torch.uint8)
        labels = F.pad(labels, beyond, value=self.ignore_index)
        rows, columns = _window(images, self.size, generator)
        images, labels = images[..., rows, columns], labels[..., rows, columns]
        return Batch(images.flip(-1), labels.flip(-1)) if self.mirror and mirrored < 0.5 else Batch(images, labels)


@dataclass(frozen=True)
class CropPair:
    """Cut the same window out of a blurred image and its sharp one (section 7.1), and mirror both where asked to.

    Attributes:
        size: height and width of the window.
        mirror: mirror left to right with probability 1/2.
    """

    size: tuple[int, int]
    mirror: bool = field(default=False, repr=False)  # digests say it where it is, as those of before do not know it

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The window of one pair; ``generator``, on the CPU, is the source of chance.

        Raises:
            DataError: the images are smaller than the window.
        """
        height, width = batch.images.shape[-2:]
        if height < self.size[0] or width < self.size[1]:
            size = f"{self.size[0]}x{self.size[1]}"
            raise DataError(f"the image has {height}x{width} pixels, and crops have {size}; take smaller ones")
        rows, columns = _window(batch.images, self.size, generator)
        images, targets = batch.images[..., rows, columns], batch.targets[..., rows, columns]
        if self.mirror and bool(torch.rand((), generator=generator) < 0.5):
            images, targets = images.flip(-1), targets.flip(-1)
        return Batch(images, targets)


def _scaled(batch: Batch, factor: float) -> tuple[Tensor, Tensor]:
    """Image and labels, larger by ``factor``: colours are mixed, labels are those of the nearest pixel."""
    images, labels = batch.images, batch.targets
    size = [max(1, round(side * factor)) for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images, labels
    mixed = F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)
    nearest = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0]
    return mixed.round().clamp(0, 255).to(torch.uint8), nearest.to(labels.dtype)


def _window(images: Tensor, size: tuple[int, int], generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a window that lies anywhere in the images."""
    starts = [
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in zip(images.shape[-2:], size, strict=True)
    ]
    return slice(starts[0], starts[0] + size[0]), slice(starts[1], starts[1] + size[1])
