"""Data sets that fit into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
        values = self.images.double() / 255
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)
        channels, height, width = self.images.shape[1:]
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
