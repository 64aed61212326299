"""The layouts of data sets in folders, of all tasks: found by their names of files, and opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from daukit.datasets.base import Dataset, Split, TaskName
from daukit.datasets.cifar import load_cifar10, load_cifar100
from daukit.datasets.cityscapes import load_cityscapes
from daukit.datasets.folders import load_blurred, load_gopro, load_segmentation
from daukit.datasets.idx import load_folder, load_images
from daukit.datasets.imagenet import load_imagenet
from daukit.datasets.memory import ImageDataset
from daukit.datasets.voc import PLACES, load_voc
from daukit.errors import DataError, in_words_of_caller

Layout = Literal[
    "idx", "cifar10", "cifar100", "imagenet", "masks", "voc", "cityscapes", "blurred", "gopro", "gopro-gamma"
]
Marks = dict[Split, tuple[str, ...]]


@dataclass(frozen=True)
class _Kind:
    """A layout.

    Attributes:
        task: what its targets are for.
        title: what messages call it.
        example: a name that they tell to look for.
        images: patterns of names, by split; one of them is there if the split has images.
        targets: the same for its targets.
        open: reads a split; further arguments are a file of class names and the order of channels.
        by_name: it is opened where it is named, and never found.
    """

    task: TaskName
    title: str
    example: str
    images: Marks
    targets: Marks
    open: Callable[[str | Path, Split, str | Path | None, str], Dataset]
    by_name: bool = False


def _idx(rest: str) -> Marks:
    return {"train": (f"train-{rest}",), "test": (f"t10k-{rest}",)}


def _in_splits(pattern: str) -> Marks:
    val = f"val/{pattern}"
    return {"train": (f"train/{pattern}",), "val": (val,), "test": (f"test/{pattern}", val)}


def _val_is_test(*patterns: str) -> Marks:
    train, val = (tuple(pattern.format(part) for pattern in patterns) for part in ("train", "val"))
    return {"train": train, "val": val, "test": val}


_CIFAR10: Marks = {"train": ("data_batch_?.bin",), "test": ("test_batch.bin",)}
_CIFAR100: Marks = {"train": ("train.bin",), "test": ("test.bin",)}
_IMAGENET: Marks = _val_is_test("{}")
_VOC: tuple[Marks, Marks] = (
    _val_is_test(*(f"{place}ImageSets/Segmentation/{{}}.txt" for place in PLACES)),
    dict.fromkeys(get_args(Split), tuple(f"{place}SegmentationClass" for place in PLACES)),
)
_CITYSCAPES: tuple[Marks, Marks] = (_val_is_test("leftImg8bit/{}"), _val_is_test("gtFine/{}"))

_KINDS: dict[Layout, _Kind] = {
    "idx": _Kind(
        "classification", "IDX files", "train-images-idx3-ubyte",
        _idx("images?idx3-ubyte*"), _idx("labels?idx1-ubyte*"),
        lambda folder, split, classes, _: load_folder(folder, split, classes),
    ),
    "cifar10": _Kind(
        "classification", "CIFAR-10", "data_batch_1.bin", _CIFAR10, _CIFAR10,
        lambda folder, split, classes, _: load_cifar10(folder, split, classes),
    ),
    "cifar100": _Kind(
        "classification", "CIFAR-100", "train.bin", _CIFAR100, _CIFAR100,
        lambda folder, split, classes, _: load_cifar100(folder, split, classes),
    ),
    "imagenet": _Kind(
        "classification", "pictures by class", "train/CLASS", _IMAGENET, _IMAGENET,
        lambda folder, split, classes, order: replace(load_imagenet(folder, split, classes), channel_order=order),
    ),
    "masks": _Kind(
        "segmentation", "pictures with masks", "train/masks", _in_splits("images"), _in_splits("masks"),
        lambda folder, split, classes, order: load_segmentation(folder, split, classes, channel_order=order),
    ),
    "voc": _Kind(
        "segmentation", "PASCAL VOC", "SegmentationClass", *_VOC,
        lambda folder, split, classes, order: load_voc(folder, split, classes, channel_order=order),
    ),
    "cityscapes": _Kind(
        "segmentation", "Cityscapes", "leftImg8bit/train", *_CITYSCAPES,
        lambda folder, split, classes, order: load_cityscapes(folder, split, classes, channel_order=order),
    ),
    "blurred": _Kind(
        "deblurring", "blurred and sharp pictures", "train/blurred", _in_splits("blurred"), _in_splits("sharp"),
        lambda folder, split, _, order: load_blurred(folder, split, channel_order=order),
    ),
    "gopro": _Kind(
        "deblurring", "GOPRO", "train/SEQUENCE/blur", _in_splits("*/blur"), _in_splits("*/sharp"),
        lambda folder, split, _, order: load_gopro(folder, split, channel_order=order),
    ),
    "gopro-gamma": _Kind(
        "deblurring", "GOPRO", "train/SEQUENCE/blur_gamma", _in_splits("*/blur_gamma"), _in_splits("*/sharp"),
        lambda folder, split, _, order: load_gopro(folder, split, gamma=True, channel_order=order), by_name=True,
    ),
}  # fmt: skip

LAYOUTS: tuple[Layout, ...] = tuple(_KINDS)
"""Names of all layouts."""


def open_dataset(
    folder: str | Path,
    split: Split,
    layout: Layout | None = None,
    classes: str | Path | None = None,
    *,
    task: TaskName = "classification",
    channel_order: str = "rgb",
) -> Dataset:
    """Open a part of a data set.

    Args:
        folder: where its files are.
        split: ``"train"``, ``"val"`` or ``"test"``.
        layout: how they lie there, one of ``LAYOUTS``; default: found by the names of the files, among the layouts of
            the task.
        classes: text file with the name of a class on each line; default: the data set's own names.
        task: what its targets are for.
        channel_order: how to read pictures; other images have an order of their own.

    Raises:
        ValueError: there is no such layout or task, the layout is of another task, or classes are named of images
            that have none.
        DataError: the folder holds no layout of the task, or several, its files are missing or damaged, or the layout
            has no such split.
    """
    if classes is not None and task == "deblurring":
        raise ValueError("pictures to deblur have no classes; drop classes")
    return _KINDS[layout_of(folder, layout, task)].open(folder, split, classes, channel_order)


def open_images(
    folder: str | Path,
    split: Split,
    layout: Layout | None = None,
    *,
    task: TaskName = "classification",
    channel_order: str = "rgb",
) -> Dataset:
    """Open a part of a data set of which only the images count: targets are -1 in a layout that may have no labels.

    Raises:
        ValueError: as ``open_dataset``.
        DataError: as ``open_dataset``, but labels may be missing.
    """
    layout = layout_of(folder, layout, task)
    if layout != "idx":
        return _KINDS[layout].open(folder, split, None, channel_order)
    images = load_images(folder, split)
    return ImageDataset(images, torch.full((len(images),), -1))


def check_layout(layout: Layout | None, task: TaskName) -> None:
    """Raise ``ValueError`` unless there is such a layout of such a task; None is found later."""
    own = [name for name, kind in _KINDS.items() if kind.task == task]
    if not own:
        raise ValueError(f"task must be classification, segmentation or deblurring, got {task!r}")
    if layout is None:
        return
    if layout not in _KINDS:
        raise ValueError(f"layout must be one of {', '.join(_KINDS)}, got {layout!r}")
    if layout not in own:
        raise ValueError(
            f"layout {layout} is for {_KINDS[layout].task}, and the network for {task}, with layout {' or '.join(own)}"
        )


def task_of_layout(layout: Layout) -> TaskName:
    """What the targets of a layout are for.

    Raises:
        ValueError: there is no such layout.
    """
    if layout not in _KINDS:
        raise ValueError(f"layout must be one of {', '.join(_KINDS)}, got {layout!r}")
    return _KINDS[layout].task


def layout_of(folder: str | Path, layout: Layout | None = None, task: TaskName = "classification") -> Layout:
    """The layout of a folder, or the one that the caller names, where it has to be known.

    Raises:
        ValueError: there is no such layout of the task.
        DataError: there is no such folder, or it holds no layout of the task, or several.
    """
    check_layout(layout, task)
    there = layouts_in(folder)
    if layout is not None:
        return layout
    own = [name for name in there if _KINDS[name].task == task]
    if len(own) == 1:
        return own[0]
    if own:
        how = in_words_of_caller("layout=", "--layout")
        raise DataError(f"{folder}: holds {_titles(own)}; put each into a folder of its own, or name one by {how}")
    if there:
        how = in_words_of_caller('layout="imagenet"', "--layout imagenet")
        classes = any(map(_patterns_in(folder), _IMAGENET["train"])) and task == "classification"
        hint = f"; if the folders in {Path(folder) / 'train'} are classes, say so by {how}" if classes else ""
        raise DataError(
            f"{folder}: holds {_titles(there)}, for {_taken_by(_KINDS[there[0]].task)}, and this one is for {task}; "
            f"{_looked_for(task)}{hint}"
        )
    raise DataError(f"{folder}: holds no data set that daukit knows; {_looked_for(task)}")


def layouts_in(folder: str | Path) -> list[Layout]:
    """The layouts that a folder has files of, of whatever task.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    is_there = _patterns_in(folder)
    found = [
        name
        for name, kind in _KINDS.items()
        if not kind.by_name
        and any(is_there(mark) for marks in (kind.images, kind.targets) for split in marks.values() for mark in split)
    ]
    # Any folder called train could be one of classes.
    is_sure = any(_KINDS[name].task != "classification" for name in found)
    return [name for name in found if name != "imagenet" or not is_sure]


def title_of(layout: Layout) -> str:
    """What messages call a layout, as ``"IDX files"``."""
    return _KINDS[layout].title


def has_images(
    folder: str | Path, split: Split, layout: Layout | None = None, *, task: TaskName = "classification"
) -> bool:
    """Tell whether a data set has such a part, by the names of its files. Raises as ``layout_of`` does."""
    marks = _KINDS[layout_of(folder, layout, task)].images.get(split, ())
    return any(map(_patterns_in(folder), marks))


def has_labels(
    folder: str | Path, split: Split, layout: Layout | None = None, *, task: TaskName = "classification"
) -> bool:
    """Tell whether such a part has targets, by the names of its files. Raises as ``layout_of`` does."""
    marks = _KINDS[layout_of(folder, layout, task)].targets.get(split, ())
    return any(map(_patterns_in(folder), marks))


def _titles(layouts: list[Layout]) -> str:
    return " and ".join(f"{_KINDS[name].title} ({name})" for name in layouts)


def _taken_by(task: TaskName) -> str:
    """What has to be told of a network so that it is for a task."""
    option = in_words_of_caller('task="segmentation"', "--model-arg task=segmentation")
    networks = {
        "classification": "a network that classifies, as shallow_dau",
        "segmentation": f"a network that segments, as shallow_dau with {option}",
        "deblurring": "a network that deblurs, as srn_deblur_dau",
    }
    return networks[task]


def _looked_for(task: TaskName) -> str:
    kinds = [kind for kind in _KINDS.values() if kind.task == task and not kind.by_name]
    return "looked for " + ", ".join(f"{kind.title} ({kind.example})" for kind in kinds)


def _patterns_in(folder: str | Path) -> Callable[[str], bool]:
    """A function that tells whether a pattern of names, as ``"train/*/blur"``, matches anything in a folder."""
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: there is no such folder")
    try:
        names = [path.name for path in Path(folder).iterdir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
    return partial(_is_there, Path(folder), names)


def _is_there(folder: Path, names: list[str], pattern: str) -> bool:
    first, _, rest = pattern.partition("/")
    found = [name for name in names if fnmatch(name, first)]
    return any(any((folder / name).glob(rest)) for name in found) if rest else bool(found)
