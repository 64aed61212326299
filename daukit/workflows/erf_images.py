"""The images of a folder that receptive fields are measured on: pictures without their masks or sharp twins."""

from __future__ import annotations

from pathlib import Path

from daukit.datasets import (
    Layout,
    PairedPictures,
    Split,
    has_images,
    has_labels,
    layouts_in,
    open_dataset,
    task_of_layout,
    title_of,
)
from daukit.errors import DataError, in_words_of_caller

OF_ONE_SIZE: tuple[Layout, ...] = ("idx", "cifar10", "cifar100")
"""Layouts of images that are no pictures."""

_SPLITS: tuple[Split, ...] = ("test", "train")


def layout_to_measure(folder: Path, layout: Layout | None = None) -> Layout | None:
    """The layout that says which images of a folder count; None where all pictures do.

    All pictures count of a folder of classes, too, and of one whose masks or sharp pictures are not there.

    Args:
        folder: where the images are.
        layout: the one that the user named.

    Raises:
        ValueError: there is no such layout.
        DataError: there is no such folder, or its layout cannot be told.
    """
    found = layouts_in(folder)
    if layout is not None:
        return layout if layout in OF_ONE_SIZE or task_of_layout(layout) != "classification" else None
    own = next((name for name in found if name in OF_ONE_SIZE), None)
    paired = [name for name in found if _has_targets(folder, name)]
    if own is None and len(paired) > 1:
        them = " and ".join(f"{title_of(name)} ({name})" for name in paired)
        name_it = in_words_of_caller("layout=", "--layout")
        raise DataError(f"{folder}: holds {them}; put each into a folder of its own, or name one by {name_it}")
    return own or next(iter(paired), None)


def pictures_to_measure(folder: Path, layout: Layout) -> list[Path]:
    """The pictures of a folder to which its masks or sharp pictures belong: those to measure on, or else to learn from.

    Raises:
        DataError: a file is missing or has no partner.
    """
    task = task_of_layout(layout)
    split: Split = "test" if has_images(folder, "test", layout, task=task) else "train"
    images = open_dataset(folder, split, layout, task=task)
    assert isinstance(images, PairedPictures)
    return [picture for picture, _ in images.pairs]


def _has_targets(folder: Path, layout: Layout) -> bool:
    task = task_of_layout(layout)
    return task != "classification" and any(has_labels(folder, each, layout, task=task) for each in _SPLITS)
