"""CIFAR-10 and CIFAR-100 in their binary version: images of 32 x 32 pixels in three colours (Krizhevsky, 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from daukit.datasets.base import Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.memory import ImageDataset
from daukit.errors import DataError

_SHAPE = (3, 32, 32)  # red, green, blue; of each, row by row
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Version:
    """What the two data sets differ in.

    Attributes:
        files: by split; an image's record is one byte per label, the last of which counts, and its pixels.
        names: the file with the names of the classes.
        labels: bytes before the pixels.
        num_classes: number of classes.
    """

    files: dict[Split, tuple[str, ...]]
    names: str
    labels: int
    num_classes: int


_CIFAR10 = _Version(
    {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    "batches.meta.txt",
    labels=1,
    num_classes=10,
)
_CIFAR100 = _Version(  # its first label is the superclass
    {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", labels=2, num_classes=100
)


def load_cifar10(folder: str | Path, split: Split, classes: str | Path | None = None) -> ImageDataset:
    """Read ``data_batch_1.bin`` to ``data_batch_5.bin``, or ``test_batch.bin``.

    Args:
        folder: where the files are.
        split: ``"train"`` or ``"test"``.
        classes: text file with the name of a class on each line; default: the folder's ``batches.meta.txt``.

    Raises:
        DataError: a file is missing, truncated or of another kind, or has a label that is no class.
    """
    return _load(Path(folder), split, classes, _CIFAR10)


def load_cifar100(folder: str | Path, split: Split, classes: str | Path | None = None) -> ImageDataset:
    """Read ``train.bin`` or ``test.bin``; the fine label counts, one of a hundred.

    Args:
        folder: where the files are.
        split: ``"train"`` or ``"test"``.
        classes: text file with the name of a class on each line; default: the folder's ``fine_label_names.txt``.

    Raises:
        DataError: a file is missing, truncated or of another kind, or has a label that is no class.
    """
    return _load(Path(folder), split, classes, _CIFAR100)


def _load(folder: Path, split: Split, classes: str | Path | None, version: _Version) -> ImageDataset:
    files = of_split(version.files, split, folder)
    names = read_class_names(folder / version.names if classes is None else classes, version.num_classes)
    parts = [_read_records(folder / name, version) for name in files]
    for name, part in zip(files, parts, strict=True):
        if len(part) != len(parts[0]):
            raise DataError(
                f"{folder / name}: holds {len(part)} images, and {files[0]} holds {len(parts[0])}; batches are of one "
                "size, so one of the two is not complete"
            )
    records = np.concatenate(parts)
    images = torch.from_numpy(np.ascontiguousarray(records[:, version.labels :])).reshape(-1, *_SHAPE)
    return ImageDataset(images, torch.from_numpy(records[:, version.labels - 1].astype(np.int64)), names)


def _read_records(path: Path, version: _Version) -> NDArray[np.uint8]:
    """A file's images: (N, labels and pixels)."""
    try:
        values = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; copy the whole data set") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    length = version.labels + _PIXELS
    if not len(values) or len(values) % length:
        raise DataError(
            f"{path}: has {len(values)} bytes, and images of {length} bytes each, at least one, must fill it; is it "
            "the binary version? copy it again"
        )
    records = values.reshape(-1, length)
    labels = records[:, version.labels - 1]
    if int(labels.max()) >= version.num_classes:
        raise DataError(
            f"{path}: image {int(labels.argmax())} has label {int(labels.max())}, and the largest one is "
            f"{version.num_classes - 1}"
        )
    return records
