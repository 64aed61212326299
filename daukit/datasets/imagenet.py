"""Folders of pictures by class, as ImageNet's: ``train/CLASS/*``, and ``val/CLASS/*`` or all of ``val`` in one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daukit.datasets.base import Batch, Dataset, DatasetInfo, Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.crops import CenterCrop, View
from daukit.datasets.reading import read_all
from daukit.errors import DataError
from daukit.pictures import SUFFIXES, pixels_of, read_picture
from daukit.preprocessing import Preprocessing
from daukit.texts import read_lines

SIZE = (224, 224)
"""Size of images, unless a network takes another one."""
TRUTH, SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_synsets.txt"
"""Files for validation pictures in one folder: the number of each picture's class, and the class of each number."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
_VIEW = CenterCrop(SIZE)
_ROOTS: dict[Split, str] = {"train": "train", "val": "val", "test": "val"}
_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """Pictures with a class each, read when they are asked for: a ``Dataset``. Their order is that of their names.

    All names are in one text, as a million paths would take a gigabyte.

    Attributes:
        root: where all of them are.
        folders: by class, the folder in ``root`` that its pictures are in; ``"."`` for ``root`` itself.
        names: names of all files, one behind the other.
        ends: where each of them ends.
        labels: the class of each.
        class_names: by class.
        view: makes an image of one size of a picture.
        channel_order: ``"gray"``, ``"rgb"`` or ``"bgr"``.
    """

    root: Path
    folders: tuple[str, ...]
    names: bytes
    ends: NDArray[np.int64]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    view: View = _VIEW
    channel_order: str = "rgb"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def info(self) -> DatasetInfo:
        """Its classes."""
        return DatasetInfo(len(self.class_names), self.class_names)

    def path(self, index: int) -> Path:
        """The file of a picture."""
        start = int(self.ends[index - 1]) if index else 0
        name = os.fsdecode(self.names[start : int(self.ends[index])])
        return self.root / self.folders[int(self.labels[index])] / name

    def batch(self, indices: Tensor | slice) -> Batch:
        """The pictures at ``indices`` as images, and their classes.

        Raises:
            DataError: one of them cannot be read.
        """
        places = np.arange(len(self))[indices if isinstance(indices, slice) else indices.numpy()]
        images = read_all(self._image, places.tolist())
        return Batch(torch.stack(images), torch.from_numpy(self.labels[places]).long())

    def preprocessing(self) -> Preprocessing:
        """Preprocessing by the statistics of ImageNet's pixels, for images of ``SIZE``."""
        return Preprocessing(_MEAN, _STD, "rgb", SIZE, class_names=self.class_names)

    def digest(self) -> str:
        """SHA-256 of names, sizes and classes of all files; no picture is read.

        Raises:
            DataError: a file is no longer there.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        folders = [os.fsencode(self.root / name) + b"/" for name in self.folders]
        start = 0
        for label, end in zip(self.labels.tolist(), self.ends.tolist(), strict=True):
            name, start = self.names[start:end], end
            try:
                size = os.stat(folders[label] + name).st_size  # noqa: PTH116 -- a Path per file takes much longer
            except OSError as error:
                raise DataError(f"{os.fsdecode(folders[label] + name)}: cannot be read: {error.strerror}") from None
            digest.update(b"%d %d %s\n" % (label, size, name))
        return digest.hexdigest()

    def _image(self, index: int) -> Tensor:
        picture = read_picture(self.path(index), self.channel_order)
        return pixels_of(self.view(picture, index), self.channel_order)


def fitted(dataset: Dataset, preprocessing: Preprocessing) -> Dataset:
    """The data set with images as a network is measured on them; those that have a size of their own keep it."""
    if not isinstance(dataset, PictureFolder):
        return dataset
    return replace(dataset, view=CenterCrop(preprocessing.input_size), channel_order=preprocessing.channel_order)


def load_imagenet(folder: str | Path, split: Split, classes: str | Path | None = None) -> PictureFolder:
    """List the pictures of ``train`` or ``val``; none is read.

    Classes are the folders in ``train``, or in ``val`` if there is no ``train``, in the order of their names. If all
    pictures of ``val`` are in one folder, the files ``TRUTH`` and ``SYNSETS`` beside it say their classes.

    Args:
        folder: where ``train`` and ``val`` are.
        split: ``"train"``, or ``"val"`` or ``"test"``, which are both ``val``.
        classes: text file with the name of a class on each line; default: ``classes.txt`` in the folder, or the names
            of the classes' folders.

    Raises:
        DataError: a folder or file is missing or empty, or a picture has no class.
    """
    folder = Path(folder)
    root, train = folder / of_split(_ROOTS, split, folder), folder / "train"
    own = _folders(root)
    if not own and split != "train":
        return _flat(folder, root, classes)
    known = _folders(train) if train.is_dir() else own
    if not own:
        raise DataError(f"{root}: holds no folder; the pictures of each class go into a folder of their own")
    strange = next((name for name in own if name not in set(known)), None)
    if strange is not None:
        raise DataError(f"{root / strange}: is no class, as there is no folder {train / strange}")
    place = {name: label for label, name in enumerate(known)}
    lists = [(place[name], _pictures(root / name)) for name in own]
    labels = np.repeat([label for label, _ in lists], [len(names) for _, names in lists]).astype(np.int32)
    names, ends = _joined([name for _, names in lists for name in names])
    return PictureFolder(root, tuple(known), names, ends, labels, _named(folder, classes, known))


def _flat(folder: Path, root: Path, classes: str | Path | None) -> PictureFolder:
    """Validation pictures in one folder: the nth line of ``TRUTH`` is the number of the nth picture's class."""
    pictures, numbers, synsets = _pictures(root), read_lines(folder / TRUTH), read_lines(folder / SYNSETS)
    if len(numbers) != len(pictures):
        raise DataError(f"{folder / TRUTH}: has {len(numbers)} lines, and {root} {len(pictures)} pictures, one a line")
    train = folder / "train"
    known = _folders(train) if train.is_dir() else sorted(synsets)
    place = {name: label for label, name in enumerate(known)}
    labels = np.empty(len(numbers), np.int32)
    for line, text in enumerate(numbers):
        number = int(text) if text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= len(synsets):
            raise DataError(
                f"{folder / TRUTH}: line {line + 1} is {text[:40]!r}, and must be the number of a line of {SYNSETS}, "
                f"1 to {len(synsets)}"
            )
        if synsets[number - 1] not in place:
            raise DataError(
                f"{folder / SYNSETS}: line {number} is no class, as there is no folder {train / synsets[number - 1]}"
            )
        labels[line] = place[synsets[number - 1]]
    names, ends = _joined(pictures)
    return PictureFolder(root, (".",) * len(known), names, ends, labels, _named(folder, classes, known))


def _folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, but for hidden ones, in their order."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except FileNotFoundError:
        raise DataError(f"{root}: there is no such folder; pictures lie in train/CLASS and val/CLASS") from None
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from None


def _pictures(root: Path) -> list[bytes]:
    """Names of the pictures in ``root``, but for hidden ones, in their order."""
    try:
        with os.scandir(os.fsencode(root)) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(_ENDINGS) and not entry.name.startswith(b".") and not entry.is_dir()
            ]
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from None
    if not names:
        raise DataError(f"{root}: holds no picture ({', '.join(SUFFIXES)})")
    return sorted(names)


def _joined(names: list[bytes]) -> tuple[bytes, NDArray[np.int64]]:
    return b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64)


def _named(folder: Path, classes: str | Path | None, known: list[str]) -> tuple[str, ...]:
    path = folder / "classes.txt" if classes is None else Path(classes)
    if classes is None and not path.is_file():
        return tuple(known)
    return read_class_names(path, len(known))
