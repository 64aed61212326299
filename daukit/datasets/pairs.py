"""Pictures that have another picture as their target, read when they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from daukit.datasets.base import Batch, DatasetInfo
from daukit.datasets.listing import by_stem
from daukit.datasets.reading import read_all
from daukit.errors import DataError
from daukit.pictures import pixels_of, read_mask, read_picture
from daukit.preprocessing import Preprocessing

_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Of ImageNet, as most backbones are trained.
    "mask": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Tao et al. (2018) leave brightness within [0, 1].
    "picture": ((0.0,) * 3, (1.0,) * 3),
}


@dataclass(frozen=True)
class PairedPictures:
    """Pictures with a target of the same size each, a mask of labels or another picture: a ``Dataset``.

    Attributes:
        folder: where they are, for their names in the digest.
        pairs: each picture and its target.
        target: what the targets are.
        info: the classes of masks.
        channel_order: how pictures are read: ``"gray"``, ``"rgb"`` or ``"bgr"``.
        read_labels: reads a mask, as ``read_mask`` does.
    """

    folder: Path
    pairs: tuple[tuple[Path, Path], ...]
    target: Literal["mask", "picture"]
    info: DatasetInfo
    channel_order: str = "rgb"
    read_labels: Callable[[Path], Tensor] = read_mask

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: Tensor | slice) -> Batch:
        """The pictures at ``indices``, which must be of one size, and their targets.

        Raises:
            DataError: one cannot be read, differs from its target in size, or has a label beyond the classes; or their
                sizes differ.
        """
        chosen = torch.arange(len(self.pairs))[indices].tolist()
        images, targets = zip(*read_all(self._read, chosen), strict=True)
        odd = next((k for k, image in enumerate(images) if image.shape != images[0].shape), None)
        if odd is not None:
            here, first = self.pairs[chosen[odd]][0], self.pairs[chosen[0]][0]
            raise DataError(
                f"{here}: has {_size(images[odd])} pixels, and {first} has {_size(images[0])}; pictures of different "
                "sizes make no batch, so take one at a time"
            )
        return Batch(torch.stack(images), torch.stack(targets))

    def preprocessing(self) -> Preprocessing:
        """Preprocessing by ImageNet's statistics for masks; none but a scale to [0, 1] for pictures."""
        mean, std = _STATISTICS[self.target]
        if self.channel_order == "gray":
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        elif self.channel_order == "bgr":
            mean, std = mean[::-1], std[::-1]
        height, width = self.batch(slice(1)).images.shape[2:]
        return Preprocessing(mean, std, self.channel_order, (height, width), class_names=self.info.class_names)

    def digest(self) -> str:
        """SHA-256 of the names and sizes of all files, and of the names of classes.

        Raises:
            DataError: a file is no longer there.
        """
        digest = hashlib.sha256(repr(self.info.class_names).encode())
        for path in (path for pair in self.pairs for path in pair):
            try:
                size = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
            name = Path(os.path.relpath(path, self.folder)).as_posix()
            digest.update(f"{name} {size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        picture, target = self.pairs[index]
        image = pixels_of(read_picture(picture, self.channel_order), self.channel_order)
        if self.target == "mask":
            wanted = self.read_labels(target)
            self._check_labels(wanted, target)
        else:
            wanted = pixels_of(read_picture(target, self.channel_order), self.channel_order)
        if wanted.shape[-2:] != image.shape[-2:]:
            raise DataError(f"{target}: has {_size(wanted)} pixels, and {picture} has {_size(image)}")
        return image, wanted

    def _check_labels(self, mask: Tensor, path: Path) -> None:
        classes, ignored = self.info.num_classes, self.info.ignore_index
        unknown = mask[(mask >= classes) & (mask != ignored)]
        if len(unknown):
            raise DataError(
                f"{path}: has a pixel of label {int(unknown[0])}; there are {classes} classes, of labels 0 to "
                f"{classes - 1}, and pixels of label {ignored} are ignored"
            )


def pair_up(first: Path, second: Path) -> list[tuple[Path, Path]]:
    """The pictures of two folders that have the same name, whatever its ending, sorted by it.

    Raises:
        DataError: a folder is not there or has no picture, or a picture has no partner or several.
    """
    return matched(by_stem(first), by_stem(second))


def matched(left: Mapping[str, Path], right: Mapping[str, Path]) -> list[tuple[Path, Path]]:
    """The files of two folders that have the same name, in the order of the first.

    Raises:
        DataError: one has no partner.
    """
    for here, there in ((left, right), (right, left)):
        alone = next((name for name in here if name not in there), None)
        if alone is not None:
            folder = next(iter(there.values())).parent
            raise DataError(f"{here[alone]}: has no partner: {folder} has no picture called {alone}")
    return [(path, right[name]) for name, path in left.items()]


def _size(image: Tensor) -> str:
    return f"{image.shape[-2]}x{image.shape[-1]}"
