"""Random changes of training images: mirroring, as in section 4.2 of the paper, and small shifts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(pixels: Tensor, *, mirror: bool, shift: int, generator: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability 1/2, then move it.

    Args:
        pixels: (N, C, H, W), any dtype; not changed.
        mirror: mirror at all.
        shift: the largest shift, in whole pixels: each image moves by its own integers in [-shift, shift] along both
            axes, and the gap is filled with 0, black.
        generator: source of the random numbers, on the CPU.

    Returns:
        (N, C, H, W), of the dtype of ``pixels``; ``pixels`` itself if there is nothing to do.
    """
    number, _, height, width = pixels.shape
    if mirror:
        flipped = torch.rand(number, generator=generator).to(pixels.device) < 0.5
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)
    if shift:
        top, left = torch.randint(2 * shift + 1, (2, number), generator=generator).to(pixels.device)
        rows = top[:, None] + torch.arange(height, device=pixels.device)
        columns = left[:, None] + torch.arange(width, device=pixels.device)
        images = torch.arange(number, device=pixels.device)
        padded = F.pad(pixels, (shift, shift, shift, shift))
        # Advanced indices around a slice come first: (N, H, W, C).
        pixels = padded[images[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return pixels
