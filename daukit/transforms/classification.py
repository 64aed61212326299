"""Random changes of images of which only the class counts: mirroring, as in section 4.2, and small shifts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.datasets import Batch


@dataclass(frozen=True)
class MirrorAndShift:
    """Mirror every image left to right with probability 1/2, then move it; the class stays.

    Attributes:
        mirror: mirror at all.
        shift: the largest shift, in whole pixels: each image moves by its own integers in [-shift, shift] along both
            axes, and the gap is filled with 0, black.
    """

    mirror: bool = False
    shift: int = 0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """A changed batch, of the same shape, type and device; ``generator``, on the CPU, is the source of chance.

        Raises:
            ValueError: targets belong to pixels, which would move without them.
        """
        images = batch.images
        if batch.targets.dim() > 1 and (self.mirror or self.shift):
            raise ValueError("mirror and shift move images without their masks or sharp images; use Cropped")
        if self.mirror:
            images = _mirrored(images, generator)
        if self.shift:
            images = _moved(images, self.shift, generator)
        return Batch(images, batch.targets)


def _mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    flipped = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def _moved(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    number, _, height, width = images.shape
    top, left = torch.randint(2 * shift + 1, (2, number), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    each = torch.arange(number, device=images.device)
    padded = F.pad(images, (shift, shift, shift, shift))
    # Advanced indices around a slice come first: (N, H, W, C).
    return padded[each[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
