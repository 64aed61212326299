"""Data sets: images with a target each, read when they are asked for."""

from __future__ import annotations

from daukit.datasets.base import Batch, Dataset, DatasetInfo, Split
from daukit.datasets.cifar import load_cifar10, load_cifar100
from daukit.datasets.idx import load_folder, load_images, read_idx
from daukit.datasets.layouts import Layout, has_images, has_labels, layouts_in, open_dataset, open_images, title_of
from daukit.datasets.memory import ImageDataset

__all__ = [
    "Batch",
    "Dataset",
    "DatasetInfo",
    "ImageDataset",
    "Layout",
    "Split",
    "has_images",
    "has_labels",
    "layouts_in",
    "load_cifar10",
    "load_cifar100",
    "load_folder",
    "load_images",
    "open_dataset",
    "open_images",
    "read_idx",
    "title_of",
]
