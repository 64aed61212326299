"""Data sets: images with a target each, read when they are asked for."""

from __future__ import annotations

from daukit.datasets.base import Batch, Dataset, DatasetInfo, Split, TaskName
from daukit.datasets.cifar import load_cifar10, load_cifar100
from daukit.datasets.cityscapes import load_cityscapes
from daukit.datasets.folders import load_deblurring, load_segmentation
from daukit.datasets.idx import load_folder, load_images, read_idx
from daukit.datasets.imagenet import PictureFolder, fitted, load_imagenet
from daukit.datasets.layouts import (
    LAYOUTS,
    Layout,
    check_layout,
    has_images,
    has_labels,
    layouts_in,
    open_dataset,
    open_images,
    task_of_layout,
    title_of,
)
from daukit.datasets.memory import ImageDataset
from daukit.datasets.pairs import PairedPictures
from daukit.datasets.reading import read_ahead, read_all
from daukit.datasets.voc import load_voc

__all__ = [
    "LAYOUTS",
    "Batch",
    "Dataset",
    "DatasetInfo",
    "ImageDataset",
    "Layout",
    "PairedPictures",
    "PictureFolder",
    "Split",
    "TaskName",
    "check_layout",
    "fitted",
    "has_images",
    "has_labels",
    "layouts_in",
    "load_cifar10",
    "load_cifar100",
    "load_cityscapes",
    "load_deblurring",
    "load_folder",
    "load_imagenet",
    "load_images",
    "load_segmentation",
    "load_voc",
    "open_dataset",
    "open_images",
    "read_ahead",
    "read_all",
    "read_idx",
    "task_of_layout",
    "title_of",
]
