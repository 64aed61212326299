"""Random parts of pictures of any size, by the protocols of AlexNet and of ResNet."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image, ImageOps

from daukit.datasets import Dataset, ImageDataset, PairedPictures
from daukit.datasets.crops import resized, shorter_side
from daukit.datasets.imagenet import PictureFolder, fitted
from daukit.preprocessing import Preprocessing
from daukit.transforms.cropped import Cropped
from daukit.transforms.seeded import sample_generator

Part = Literal["area", "position"]
"""What is random: area, shape and position of a part (ResNet), or the position of a part of one size (AlexNet)."""

_AREAS = (0.08, 1.0)  # of the picture; Szegedy et al., 2015
_SHAPES = (3 / 4, 4 / 3)  # width by height
_TRIES = 10


@dataclass(frozen=True)
class RandomCrop:
    """A random part of a picture, mirrored with probability 1/2 where asked to: a ``View``.

    The part depends on ``seed``, ``epoch`` and the picture's place alone, and not on what was cropped before.

    Attributes:
        size: (height, width) of the image.
        part: ``"area"``: a part of 8 to 100 % of the picture's area whose sides are as 3:4 to 4:3, resized;
            ``"position"``: a part of the middle square of the picture, whose shorter side was resized to 256.
        mirror: mirror at all.
        seed: of the training.
        epoch: its number, from 0.
    """

    size: tuple[int, int]
    part: Part = "area"
    mirror: bool = False
    seed: int = 0
    epoch: int = 0

    def __call__(self, picture: Image.Image, index: int) -> Image.Image:
        """The part of the picture at ``index``."""
        chance = sample_generator(self.seed, self.epoch, index)
        height, width = self.size
        if self.part == "area":
            box = _random_box(picture.size, chance)
            image = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
        else:
            side = shorter_side(self.size)
            whole = resized(picture, side)
            left, top = (whole.width - side) // 2, (whole.height - side) // 2
            left += int(torch.randint(side - width + 1, (), generator=chance))
            top += int(torch.randint(side - height + 1, (), generator=chance))
            image = whole.crop((left, top, left + width, top + height))
        flipped = self.mirror and bool(torch.rand((), generator=chance) < 0.5)
        return ImageOps.mirror(image) if flipped else image


def for_training(dataset: Dataset, preprocessing: Preprocessing, part: Part, mirror: bool) -> Dataset:
    """The data set with random parts of its pictures, as a network takes them; images of one size stay as they are."""
    if not isinstance(dataset, PictureFolder):
        return dataset
    seen = fitted(dataset, preprocessing)
    assert isinstance(seen, PictureFolder)
    return replace(seen, view=RandomCrop(preprocessing.input_size, part, mirror))


def first_of(dataset: Dataset, number: int) -> Dataset:
    """The first images of a data set, as many as there are up to ``number``."""
    if isinstance(dataset, Cropped):
        return replace(dataset, dataset=first_of(dataset.dataset, number))
    if isinstance(dataset, PictureFolder):
        return replace(dataset, ends=dataset.ends[:number], labels=dataset.labels[:number])
    if isinstance(dataset, PairedPictures):
        return replace(dataset, pairs=dataset.pairs[:number])
    assert isinstance(dataset, ImageDataset)  # the kinds that there are
    names = dataset.class_names or tuple(map(str, range(dataset.info.num_classes)))  # also of classes that are left out
    return ImageDataset(dataset.images[:number], dataset.labels[:number], names)


def in_epoch(dataset: Dataset, seed: int, epoch: int) -> Dataset:
    """The data set with the random parts of an epoch; one without random parts stays as it is."""
    if isinstance(dataset, Cropped):
        return dataset.in_epoch(epoch)
    if not isinstance(dataset, PictureFolder) or not isinstance(dataset.view, RandomCrop):
        return dataset
    return replace(dataset, view=replace(dataset.view, seed=seed, epoch=epoch))


def is_cropped(dataset: Dataset) -> bool:
    """Tell whether a data set has random parts of pictures that are mirrored already where asked to."""
    if isinstance(dataset, Cropped):
        return dataset.crop.mirror
    return isinstance(dataset, PictureFolder) and isinstance(dataset.view, RandomCrop)


def _random_box(size: tuple[int, int], chance: torch.Generator) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom) in a picture of ``size`` (width, height)."""
    full_width, full_height = size
    for _ in range(_TRIES):
        area, shape, x, y = torch.rand(4, generator=chance, dtype=torch.float64).tolist()
        area = full_width * full_height * (_AREAS[0] + area * (_AREAS[1] - _AREAS[0]))
        shape = math.exp(math.log(_SHAPES[0]) + shape * (math.log(_SHAPES[1]) - math.log(_SHAPES[0])))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < width <= full_width and 0 < height <= full_height:
            left, top = int(x * (full_width - width + 1)), int(y * (full_height - height + 1))
            return left, top, left + width, top + height
    # A long picture: its middle, as large as the shapes allow.
    width = max(1, min(full_width, round(_SHAPES[1] * full_height)))
    height = max(1, min(full_height, round(full_width / _SHAPES[0])))
    left, top = (full_width - width) // 2, (full_height - height) // 2
    return left, top, left + width, top + height
