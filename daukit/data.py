"""Image classification data in IDX files, the format of MNIST and Fashion-MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from daukit.errors import DataError
from daukit.preprocessing import Preprocessing

Split = Literal["train", "test"]

_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}
_UINT8 = 0x08


@dataclass(frozen=True)
class ImageDataset:
    """Images with one label each.

    Attributes:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        class_names: by label; empty where nobody named them.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes: of the names where there are any, else of the labels."""
        return len(self.class_names) or int(self.labels.max()) + 1

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


def load_folder(folder: str | Path, split: Split, classes: str | Path | None = None) -> ImageDataset:
    """Read ``train-*`` or ``t10k-*`` images and labels of an IDX folder.

    Args:
        folder: where the files are.
        split: ``"train"`` or ``"test"``.
        classes: text file with the name of a class on each line; default: the folder's ``classes.txt``, if any.

    Raises:
        DataError: a file is missing, damaged or of another kind, or images and labels do not match.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    images_path = _find(folder, f"{_PREFIX[split]}-images", "idx3")
    labels_path = _find(folder, f"{_PREFIX[split]}-labels", "idx1")
    images, labels = read_idx(images_path), read_idx(labels_path).long()
    if images.dim() != 3 or labels.dim() != 1:
        raise DataError(f"{folder}: images must have 3 dimensions and labels 1, got {images.dim()} and {labels.dim()}")
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{folder}: {len(images)} images ({images_path.name}) but {len(labels)} labels ({labels_path.name})"
        )
    dataset = ImageDataset(images[:, None], labels, _class_names(folder, classes))
    if int(labels.max()) >= dataset.num_classes:
        raise DataError(f"{folder}: label {int(labels.max())}, but only {dataset.num_classes} classes are named")
    return dataset


def read_idx(path: str | Path) -> Tensor:
    """Read one IDX file of unsigned bytes: a uint8 tensor of the shape that the file states."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: its gzip stream is damaged ({error}); copy the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8 or not 1 <= data[3] <= 4:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it begins with {data[:4].hex(' ')})")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) - start != math.prod(shape):
        raise DataError(f"{path}: states {shape}, that is {math.prod(shape)} bytes, but holds {len(data) - start}")
    if not math.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).reshape(shape)


def _find(folder: Path, stem: str, kind: str) -> Path:
    for name in (f"{stem}-{kind}-ubyte", f"{stem}.{kind}-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise DataError(f"{folder}: there is no {stem}-{kind}-ubyte or {stem}-{kind}-ubyte.gz in it")


def _class_names(folder: Path, classes: str | Path | None) -> tuple[str, ...]:
    path = folder / "classes.txt" if classes is None else Path(classes)
    if classes is None and not path.is_file():
        return ()
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: class names cannot be read: {error}") from None
