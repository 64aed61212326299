"""A network that takes the pixels of pictures, its preprocessing done inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from daukit.preprocessing import Preprocessing


class FromPixels(nn.Module):
    """A network behind its preprocessing: it takes pixels as pictures have them, uint8 (N, C, H, W), grey or RGB.

    Args:
        network: takes what the preprocessing makes.
        preprocessing: scales pixels to its range of values, puts channels into its order, and normalises them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        low, high = preprocessing.value_range
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.network = network
        # (low + pixel / 255 * (high - low) - mean) / std, as one product and one sum
        self.register_buffer("scale", (high - low) / 255 / std)
        self.register_buffer("shift", (low - mean) / std)
        self.turned = preprocessing.channel_order == "bgr"

    def forward(self, pixels: Tensor) -> object:
        """What the network says of pictures."""
        values = pixels.to(self.scale.dtype)
        return self.network((values.flip(1) if self.turned else values) * self.scale + self.shift)
