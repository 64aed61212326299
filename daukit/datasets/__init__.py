"""Data sets: images with a target each, read when they are asked for."""

from __future__ import annotations

from daukit.datasets.base import Batch, Dataset, DatasetInfo, Split
from daukit.datasets.idx import load_folder, load_images, read_idx
from daukit.datasets.memory import ImageDataset

__all__ = ["Batch", "Dataset", "DatasetInfo", "ImageDataset", "Split", "load_folder", "load_images", "read_idx"]
