"""Random changes of training images."""

from __future__ import annotations

from daukit.transforms.classification import MirrorAndShift
from daukit.transforms.cropped import Cropped
from daukit.transforms.crops import CropPair, ScaleAndCrop
from daukit.transforms.pictures import Part, RandomCrop, first_of, for_training, in_epoch, is_cropped
from daukit.transforms.seeded import epoch_generator, sample_generator

__all__ = [
    "CropPair",
    "Cropped",
    "MirrorAndShift",
    "Part",
    "RandomCrop",
    "ScaleAndCrop",
    "epoch_generator",
    "first_of",
    "for_training",
    "in_epoch",
    "is_cropped",
    "sample_generator",
]
