"""Folders of IDX files, the format of MNIST and Fashion-MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daukit.datasets.base import Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.memory import ImageDataset
from daukit.errors import DataError
from daukit.limits import MAX_SIZE, is_size

_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}
_UINT8 = 0x08
_GZIP = b"\x1f\x8b"
_PART = 1 << 20  # bytes read at a time
# What a gzipped file may state beyond its own size: real images compress some ten times, a bomb a thousand times.
_MAX_RATIO = 100
_FREE = 1 << 26
_MAX_VALUES = 1 << 48


def load_folder(folder: str | Path, split: Split, classes: str | Path | None = None) -> ImageDataset:
    """Read ``train-*`` or ``t10k-*`` images and labels of an IDX folder.

    Args:
        folder: where the files are.
        split: ``"train"`` or ``"test"``.
        classes: text file with the name of a class on each line; default: the folder's ``classes.txt``, if any.

    Raises:
        DataError: a file is missing, damaged or of another kind, images and labels do not match, or ``split`` is
            another one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    prefix = of_split(_PREFIX, split, folder)
    images_path, labels_path = _find(folder, f"{prefix}-images", "idx3"), _find(folder, f"{prefix}-labels", "idx1")
    images, labels = read_idx(images_path), read_idx(labels_path).long()
    if images.dim() != 3 or labels.dim() != 1:
        raise DataError(f"{folder}: images must have 3 dimensions and labels 1, got {images.dim()} and {labels.dim()}")
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{folder}: {len(images)} images ({images_path.name}) but {len(labels)} labels ({labels_path.name})"
        )
    _check_sizes(images, images_path)
    dataset = ImageDataset(images[:, None], labels, _class_names(folder, classes))
    if int(labels.max()) >= dataset.info.num_classes:
        raise DataError(
            f"{folder}: label {int(labels.max())}, and the names of classes end at label {dataset.info.num_classes - 1}"
        )
    return dataset


def load_images(folder: str | Path, split: Split) -> Tensor:
    """Read ``train-*`` or ``t10k-*`` images of an IDX folder, which needs no labels: (N, 1, H, W) uint8.

    Raises:
        DataError: the file is missing, damaged or of another kind, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    path = _find(folder, f"{of_split(_PREFIX, split, folder)}-images", "idx3")
    images = read_idx(path)
    if images.dim() != 3 or not len(images):
        raise DataError(f"{path}: must hold at least one image, got values of shape {tuple(images.shape)}")
    _check_sizes(images, path)
    return images[:, None]


def _check_sizes(images: Tensor, path: Path) -> None:
    if not all(map(is_size, images.shape[1:])):
        raise DataError(
            f"{path}: its images are {images.shape[1]} x {images.shape[2]}; sides must be 1 to {MAX_SIZE} pixels"
        )


def read_idx(path: str | Path) -> Tensor:
    """Read one IDX file of unsigned bytes, gzipped or not: a uint8 tensor of the shape that the file states.

    No more is unpacked than the file states, and gzip's checksum is verified.

    Raises:
        DataError: the file is missing, damaged or of another kind, or holds more or less than it states.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
    try:
        with path.open("rb") as file:
            packed, is_gzip = os.fstat(file.fileno()).st_size, file.read(2) == _GZIP
            file.seek(0)
            return _read_values(gzip.GzipFile(fileobj=file) if is_gzip else file, path, packed, is_gzip)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: its gzip stream is damaged ({error}); copy the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{path}: its values do not fit into memory") from None


def _read_values(stream: io.BufferedIOBase, path: Path, packed: int, is_gzip: bool) -> Tensor:
    """The values behind a header, of a file of ``packed`` bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UINT8 or not 1 <= magic[3] <= 4:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it begins with {magic.hex(' ')})")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path}: ends within its header; copy the file again")
    shape = [int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4)]
    stated, held = math.prod(shape), packed - 4 - len(sizes)
    if math.prod(max(1, size) for size in shape) > _MAX_VALUES:  # also where a size of 0 makes it none
        raise DataError(f"{path}: states {shape}, which no memory holds; the file is damaged")
    if is_gzip and stated > max(_FREE, _MAX_RATIO * packed):
        raise DataError(
            f"{path}: states {shape}, that is {stated} bytes, from {packed} compressed ones; images do not compress so "
            f"well (more than {_MAX_RATIO} times), so it is damaged or made to fill the memory"
        )
    if is_gzip or held == stated:
        values = np.empty(stated, np.uint8)
        held = _fill(stream, values)
        held += len(stream.read(1)) if held == stated else 0  # at the end gzip compares its checksum
    if held != stated:
        what = f"more than {stated}" if is_gzip and held > stated else f"{held}"
        raise DataError(f"{path}: states {shape}, that is {stated} bytes, but holds {what}")
    return torch.from_numpy(values).reshape(shape)


def _fill(stream: io.BufferedIOBase, values: NDArray[np.uint8]) -> int:
    """Read into ``values`` until they are full or the stream ends; how many bytes were read."""
    place = 0
    while place < len(values) and (part := stream.read(min(_PART, len(values) - place))):
        values[place : place + len(part)] = np.frombuffer(part, np.uint8)
        place += len(part)
    return place


def _find(folder: Path, stem: str, kind: str) -> Path:
    for name in (f"{stem}-{kind}-ubyte", f"{stem}.{kind}-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise DataError(f"{folder}: there is no {stem}-{kind}-ubyte or {stem}-{kind}-ubyte.gz in it")


def _class_names(folder: Path, classes: str | Path | None) -> tuple[str, ...]:
    path = folder / "classes.txt" if classes is None else Path(classes)
    return () if classes is None and not path.is_file() else read_class_names(path)
