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
        """A changed batch, of the same shape, type and device; ``generator``, on the CPU, is the source of chance."""
        return self.apply(batch, self.draw(len(batch), generator))

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Choose the changes of ``number`` images: (number, 3) int64, mirrored or not, rows, columns.

        Rows may be taken for a part of the images: each image has its own, whoever changes it.
        """
        drawn = torch.zeros(number, 3, dtype=torch.int64)
        if self.mirror:
            drawn[:, 0] = torch.rand(number, generator=generator) < 0.5
        if self.shift:
            drawn[:, 1:] = torch.randint(2 * self.shift + 1, (2, number), generator=generator).T
        return drawn

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Change each image as its row of ``drawn`` says. Targets that have pixels are mirrored with their images.

        Raises:
            ValueError: targets have pixels, and images shall move.
        """
        images, targets = batch.images, batch.targets
        if targets.dim() > 1 and self.shift:
            raise ValueError("shift moves images without their masks or sharp images; use Cropped")
        flipped, top, left = drawn.to(images.device).T
        if self.mirror:
            images = _mirrored(images, flipped.bool())
            targets = _mirrored(targets, flipped.bool()) if targets.dim() > 1 else targets
        if self.shift:
            images = _moved(images, self.shift, top, left)
        return Batch(images, targets)


def _mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    return torch.where(flipped.reshape(-1, *(1,) * (images.dim() - 1)), images.flip(-1), images)


def _moved(images: Tensor, shift: int, top: Tensor, left: Tensor) -> Tensor:
    number, _, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    each = torch.arange(number, device=images.device)
    padded = F.pad(images, (shift, shift, shift, shift))
    # Advanced indices around a slice come first: (N, H, W, C).
    return padded[each[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
