"""Data sets that fit into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.datasets.base import Batch, DatasetInfo
from daukit.preprocessing import Preprocessing


@dataclass(frozen=True)
class ImageDataset:
    """Images with one label each, all in memory: a ``Dataset``.

    Attributes:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        class_names: by label; empty if the classes have no names.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def info(self) -> DatasetInfo:
        """Its classes: as many as there are names, or labels if there are no names."""
        return DatasetInfo(len(self.class_names) or int(self.labels.max()) + 1, self.class_names)

    def batch(self, indices: Tensor | slice) -> Batch:
        """The images at ``indices`` with their labels."""
        return Batch(self.images[indices], self.labels[indices])

    def preprocessing(self) -> Preprocessing:
        """Preprocessing that gives these images zero mean and unit variance per channel."""
        channels, height, width = self.images.shape[1:]
        # By how often each level occurs: all pixels as numbers of eight bytes may be more than there is memory.
        counts = [self.images[:, c].flatten().bincount(minlength=256).double() for c in range(channels)]
        shares, levels = torch.stack(counts) / self.images[:, 0].numel(), torch.arange(256).double() / 255
        mean = shares @ levels
        std = (shares * (levels - mean[:, None]) ** 2).sum(1).sqrt()
        return Preprocessing(
            mean=tuple(round(float(m), 6) for m in mean),
            std=tuple(round(float(s), 6) or 1.0 for s in std),
            channel_order="gray" if channels == 1 else "rgb",
            input_size=(height, width),
            class_names=self.class_names,
        )

    def digest(self) -> str:
        """SHA-256 of all pixels and labels."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()
