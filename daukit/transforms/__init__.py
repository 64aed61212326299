"""Random changes of training images."""

from __future__ import annotations

from daukit.transforms.classification import MirrorAndShift
from daukit.transforms.cropped import Cropped
from daukit.transforms.crops import CropPair, ScaleAndCrop
from daukit.transforms.seeded import epoch_generator, sample_generator

__all__ = ["CropPair", "Cropped", "MirrorAndShift", "ScaleAndCrop", "epoch_generator", "sample_generator"]
