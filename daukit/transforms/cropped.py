"""Data sets whose images are cropped at random, so that images of all sizes make batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from daukit.datasets import Batch, Dataset, DatasetInfo, PairedPictures, read_all
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.transforms.crops import CropPair, ScaleAndCrop
from daukit.transforms.seeded import sample_generator


@dataclass(frozen=True)
class Cropped:
    """A data set's images, each cropped at random and anew in every epoch: a ``Dataset`` to learn from.

    A crop depends on the seed, the epoch and the image alone. Images are read and cropped one at a time.

    Attributes:
        dataset: the images and their targets.
        crop: cuts a window out of both.
        seed: of the crops.
        epoch: in which they are made, from 0.
    """

    dataset: Dataset
    crop: ScaleAndCrop | CropPair
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def info(self) -> DatasetInfo:
        """That of the data set, but for the sizes of images."""
        return replace(self.dataset.info, sizes_differ=False)

    def in_epoch(self, number: int) -> Cropped:
        """The same images as epoch ``number`` shows them."""
        return replace(self, epoch=number)

    def batch(self, indices: Tensor | slice) -> Batch:
        """The images at ``indices``, cropped. Raises as those of the data set and the crop do."""
        crops = read_all(self._crop, torch.arange(len(self.dataset))[indices].tolist())
        return Batch(torch.cat([crop.images for crop in crops]), torch.cat([crop.targets for crop in crops]))

    def _crop(self, index: int) -> Batch:
        one = self.dataset.batch(slice(index, index + 1))
        try:
            return self.crop(one, sample_generator(self.seed, self.epoch, index))
        except DataError as error:
            if not isinstance(self.dataset, PairedPictures):
                raise
            raise DataError(f"{self.dataset.pairs[index][0]}: {error}") from None

    def preprocessing(self) -> Preprocessing:
        """That of the data set, for the size of the crops."""
        return replace(self.dataset.preprocessing(), input_size=self.crop.size)

    def digest(self) -> str:
        """SHA-256 of the data set's digest and of how it is cropped."""
        how = f"{self.crop} mirrored" if isinstance(self.crop, CropPair) and self.crop.mirror else str(self.crop)
        return hashlib.sha256(f"{self.dataset.digest()} {how} {self.seed}".encode()).hexdigest()
