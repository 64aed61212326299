"""The layouts of data sets in folders: found by their names of files, and opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import torch

from daukit.datasets.base import Dataset, Split
from daukit.datasets.cifar import load_cifar10, load_cifar100
from daukit.datasets.idx import load_folder, load_images
from daukit.datasets.imagenet import load_imagenet
from daukit.datasets.memory import ImageDataset
from daukit.errors import DataError, in_words_of_caller

Layout = Literal["idx", "cifar10", "cifar100", "imagenet"]


@dataclass(frozen=True)
class _Kind:
    """A layout.

    Attributes:
        title: what messages call it.
        example: a name that they tell to look for.
        images: patterns of names, by split; one of them is there if the split has images.
        labels: the same for its labels.
        open: reads a split; the third argument is a file of class names.
    """

    title: str
    example: str
    images: dict[Split, str]
    labels: dict[Split, str]
    open: Callable[[str | Path, Split, str | Path | None], Dataset]


_CIFAR10: dict[Split, str] = {"train": "data_batch_?.bin", "test": "test_batch.bin"}
_CIFAR100: dict[Split, str] = {"train": "train.bin", "test": "test.bin"}

_IMAGENET: dict[Split, str] = {"train": "train", "test": "val"}

_KINDS: dict[Layout, _Kind] = {
    "idx": _Kind(
        "IDX files",
        "train-images-idx3-ubyte",
        {"train": "train-images?idx3-ubyte*", "test": "t10k-images?idx3-ubyte*"},
        {"train": "train-labels?idx1-ubyte*", "test": "t10k-labels?idx1-ubyte*"},
        load_folder,
    ),
    "cifar10": _Kind("CIFAR-10", "data_batch_1.bin", _CIFAR10, _CIFAR10, load_cifar10),
    "cifar100": _Kind("CIFAR-100", "train.bin", _CIFAR100, _CIFAR100, load_cifar100),
    "imagenet": _Kind("pictures by class", "train/CLASS", _IMAGENET, _IMAGENET, load_imagenet),
}

LAYOUTS: tuple[Layout, ...] = tuple(_KINDS)
"""Names of all layouts."""


def open_dataset(
    folder: str | Path, split: Split, layout: Layout | None = None, classes: str | Path | None = None
) -> Dataset:
    """Open a part of a data set.

    Args:
        folder: where its files are.
        split: ``"train"`` or ``"test"``.
        layout: how they lie there, one of ``LAYOUTS``; default: found by the names of the files.
        classes: text file with the name of a class on each line; default: the data set's own names.

    Raises:
        ValueError: there is no such layout.
        DataError: the folder holds none of the layouts, or several, or its files are missing or damaged.
    """
    return _KINDS[layout_of(folder, layout)].open(folder, split, classes)


def open_images(folder: str | Path, split: Split, layout: Layout | None = None) -> Dataset:
    """Open a part of a data set of which only the images count: targets are -1 in a layout that may have no labels.

    Raises:
        ValueError: as ``open_dataset``.
        DataError: as ``open_dataset``, but labels may be missing.
    """
    layout = layout_of(folder, layout)
    if layout != "idx":
        return _KINDS[layout].open(folder, split, None)
    images = load_images(folder, split)
    return ImageDataset(images, torch.full((len(images),), -1))


def layout_of(folder: str | Path, layout: Layout | None = None) -> Layout:
    """The layout of a folder, or the one that the caller names, where it has to be known.

    Raises:
        ValueError: there is no such layout.
        DataError: there is no such folder, or it holds none of the layouts, or several.
    """
    if layout is not None and layout not in _KINDS:
        raise ValueError(f"layout must be one of {', '.join(_KINDS)}, got {layout!r}")
    there = layouts_in(folder)
    if layout is not None:
        return layout
    if not there:
        known = ", ".join(f"{kind.title} ({kind.example})" for kind in _KINDS.values())
        raise DataError(f"{folder}: holds no data set that daukit knows; looked for {known}")
    if len(there) > 1:
        how = in_words_of_caller("open_dataset takes layout=", "train and evaluate take --layout")
        them = " and ".join(f"{_KINDS[name].title} ({name})" for name in there)
        raise DataError(f"{folder}: holds {them}; put each into a folder of its own, or name one: {how}")
    return there[0]


def layouts_in(folder: str | Path) -> list[Layout]:
    """The layouts that a folder has files of.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    names = _names(folder)
    return [
        layout
        for layout, kind in _KINDS.items()
        if any(_is_there(pattern, names) for pattern in (*kind.images.values(), *kind.labels.values()))
    ]


def title_of(layout: Layout) -> str:
    """What messages call a layout, as ``"IDX files"``."""
    return _KINDS[layout].title


def has_images(folder: str | Path, split: Split, layout: Layout | None = None) -> bool:
    """Tell whether a data set has such a part, by the names of its files. Raises as ``layout_of`` does."""
    return _is_there(_KINDS[layout_of(folder, layout)].images[split], _names(folder))


def has_labels(folder: str | Path, split: Split, layout: Layout | None = None) -> bool:
    """Tell whether such a part has labels, by the names of its files. Raises as ``layout_of`` does."""
    return _is_there(_KINDS[layout_of(folder, layout)].labels[split], _names(folder))


def _names(folder: str | Path) -> list[str]:
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: there is no such folder")
    try:
        return [path.name for path in Path(folder).iterdir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None


def _is_there(pattern: str, names: list[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names)
