"""The images of a training: whole ones for classifiers, random crops for networks that segment or deblur."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, PictureFolder, check_layout, open_dataset
from daukit.errors import DataError, in_words_of_caller
from daukit.models.specs import architecture_of
from daukit.tasks import Classification, Deblurring, Segmentation, TaskName, task_name
from daukit.training import TrainingOptions
from daukit.transforms import CropPair, Cropped, ScaleAndCrop

DEFAULT_MODEL = "shallow_dau"
AnyTask = Classification | Segmentation | Deblurring

_USED = {"classification": ("shift", "part"), "segmentation": ("crop", "scale"), "deblurring": ("crop",)}
_CROPS = {"segmentation": (769, 769), "deblurring": (256, 256)}  # sections 6.2 and 7.1


def task_to_train(
    model: str | None, config: Mapping[str, Any] | None = None, initial_checkpoint: Checkpoint | None = None
) -> TaskName:
    """What the network is for that ``prepare_training`` would train with these arguments."""
    if initial_checkpoint is not None and "name" in initial_checkpoint.header.architecture:
        return task_name(initial_checkpoint.header.architecture)
    return task_name(architecture_of(model or DEFAULT_MODEL, config))


def check_changes(
    task: TaskName,
    options: TrainingOptions,
    *,
    crop: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    layout: Layout | None = None,
) -> None:
    """Raise ``ValueError`` if a network for ``task`` learns from no images of such a layout, or changed like this."""
    given: dict[str, object] = {"crop": crop, "scale": scale, "part": options.part}
    given["shift"] = options.shift or None
    unused = [name for name, value in given.items() if value is not None and name not in _USED[task]]
    if unused:
        raise ValueError(f"a network for {task} takes no {' and no '.join(unused)}; drop it")
    check_layout(layout, task)
    if scale is not None and not 0 < scale[0] <= scale[1] <= 100:
        raise ValueError(f"scale must be two numbers above 0, the larger one last, got {scale[0]:g},{scale[1]:g}")
    if crop is not None and min(crop) < 1:
        raise ValueError(f"crop must be a height and a width of at least 1, got {crop[0]},{crop[1]}")


def open_sets(
    task: TaskName,
    data: Path,
    options: TrainingOptions,
    *,
    crop: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    layout: Layout | None = None,
    classes: Path | None = None,
    channel_order: str = "rgb",
) -> tuple[Dataset, Dataset]:
    """Open the images to learn from and those to measure on, with what ``check_changes`` let pass.

    Args:
        task: what the network is for.
        data: folder of the images.
        options: have the seed of crops, and say whether they are mirrored.
        crop: height and width of the parts of pictures that a network for segmentation or deblurring learns from;
            default: 769x769 and 256x256.
        scale: bounds of a random factor on the size of pictures with masks; default: none.
        layout: of the folder; default: found as by ``open_dataset``.
        classes: file with the name of a class per line; default: the folder's own.
        channel_order: how to read pictures.

    Raises:
        DataError: the data are missing or damaged.
    """
    if task == "deblurring" and classes is not None:
        raise DataError(
            f"{data}: pictures to deblur have no classes; drop {in_words_of_caller('classes', '--classes')}"
        )
    opened = partial(open_dataset, data, layout=layout, classes=classes, task=task, channel_order=channel_order)
    train_set, test_set = opened(split="train"), opened(split="test")
    if task == "classification":
        if options.part is not None and not isinstance(train_set, PictureFolder):
            how = in_words_of_caller("part", "--part, or give --set data.part= where a recipe has it")
            raise DataError(f"{data}: its images have one size; drop {how}")
        return train_set, test_set
    size = crop or _CROPS[task]
    if task == "deblurring":
        return Cropped(train_set, CropPair(size, options.mirror), options.seed), test_set
    change = ScaleAndCrop(size, scale or (1.0, 1.0), options.mirror, train_set.info.ignore_index)
    return Cropped(train_set, change, options.seed), test_set
