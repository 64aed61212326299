"""What the rest of daukit knows of a data set, wherever its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from daukit.errors import DataError
from daukit.preprocessing import Preprocessing

T = TypeVar("T")
Split = Literal["train", "val", "test"]
"""A part of a data set: to learn from, to choose by, and to measure on.

Where a layout has but two, as those whose test images have no published targets, ``val`` is ``test``, or is not there.
"""
TaskName = Literal["classification", "segmentation", "deblurring"]
"""What images and targets are for, and networks with them."""


def of_split(parts: Mapping[Split, T], split: Split, folder: str | Path) -> T:
    """What belongs to a split, of a layout that may not have all of them.

    Raises:
        DataError: it has no such split.
    """
    if split not in parts:
        raise DataError(f"{folder}: has no part {split}; take {' or '.join(parts)}, which this layout has")
    return parts[split]


@dataclass(frozen=True)
class DatasetInfo:
    """What a task knows of a data set before it sees an image.

    Attributes:
        num_classes: number of classes that its targets are of.
        class_names: by class; empty if the classes have no names.
        ignore_index: for segmentation, the target of pixels that have no class and are never counted; it may be one
            of the classes, whose pixels are then left out.
        sizes_differ: images may be of several sizes, so that a batch can hold but one.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    ignore_index: int = 255
    sizes_differ: bool = False


@dataclass(frozen=True)
class Batch:
    """Images of one size, and the target of each: what a network should make of it.

    Attributes:
        images: ``(N, C, H, W)`` uint8.
        targets: ``(N, ...)``. For classification, the classes, ``(N,)`` int64; for segmentation, the class of each
            pixel, ``(N, H, W)`` uint8; for deblurring, the sharp images, ``(N, C, H, W)`` uint8.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on ``device``; a GPU fetches it while the program goes on."""
        if torch.device(device).type != "cuda" or self.images.device.type != "cpu":
            return Batch(self.images.to(device), self.targets.to(device))
        images, targets = (part.pin_memory().to(device, non_blocking=True) for part in (self.images, self.targets))
        return Batch(images, targets)


class Dataset(Protocol):
    """Images with a target each.

    None is read before ``batch`` asks for it, and no memory is kept per image beyond its place and its class: a data
    set may be larger than memory.
    """

    @property
    def info(self) -> DatasetInfo:
        """What is known of all images, without a look at one."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, indices: Tensor | slice) -> Batch:
        """The images at ``indices``, in their order, on the CPU.

        Raises:
            DataError: one of them cannot be read.
        """

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a network that learns from these images."""

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of whatever tells these images and targets from others."""
