"""Plain folders: pictures beside masks, blurred pictures beside sharp ones, and GOPRO, which has a pair a sequence."""

from __future__ import annotations

from pathlib import Path

from daukit.datasets.base import DatasetInfo, Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.listing import folders_in
from daukit.datasets.pairs import PairedPictures, pair_up
from daukit.errors import DataError

_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val",), "test": ("test", "val")}
_IGNORED = 255


def load_segmentation(
    folder: str | Path, split: Split, classes: str | Path | None = None, *, channel_order: str = "rgb"
) -> PairedPictures:
    """Open ``train``, ``val`` or ``test`` of a folder, with pictures in ``images`` and labels in ``masks``.

    A mask is a PNG file, grey or with a palette, of the name and size of its picture. Its values are the classes in the
    order of their names; 255 is ignored. Nothing is decoded before it is asked for.

    Args:
        folder: where the files are.
        split: ``"train"``, ``"val"``, or ``"test"``, which is ``val`` where there is no ``test``.
        classes: text file with the name of a class on each line; default: the folder's ``classes.txt``.
        channel_order: how to read pictures.

    Raises:
        DataError: something is missing, or a picture has no partner.
    """
    place, names_path = split_folder(folder, split), Path(folder) / "classes.txt" if classes is None else Path(classes)
    names = read_class_names(names_path)
    if len(names) > _IGNORED:
        raise DataError(f"{names_path}: names {len(names)} classes; masks have room for {_IGNORED}")
    pairs = tuple(pair_up(place / "images", place / "masks"))
    return PairedPictures(
        place, pairs, "mask", DatasetInfo(len(names), names, _IGNORED, sizes_differ=True), channel_order
    )


def load_deblurring(
    folder: str | Path, split: Split, *, gamma: bool = False, channel_order: str = "rgb"
) -> PairedPictures:
    """Open ``train``, ``val`` or ``test`` of a folder of blurred and sharp pictures of the same names and sizes.

    They are in ``blurred`` and ``sharp``; or, as in GOPRO (Nah et al., 2017), there are folders of sequences with
    ``blur``, ``blur_gamma`` and ``sharp`` in each. Nothing is decoded before it is asked for.

    Args:
        folder: where the files are.
        split: ``"train"``, ``"val"``, or ``"test"``, which is ``val`` where there is no ``test``.
        gamma: take GOPRO's ``blur_gamma``, which was blurred with the camera's gamma, instead of ``blur``.
        channel_order: how to read pictures.

    Raises:
        DataError: something is missing, or a picture has no partner.
    """
    if (split_folder(folder, split) / "blurred").is_dir():
        if gamma:
            raise DataError(
                f"{split_folder(folder, split)}: has blurred, and only sequences as in GOPRO have blur_gamma"
            )
        return load_blurred(folder, split, channel_order=channel_order)
    return load_gopro(folder, split, gamma=gamma, channel_order=channel_order)


def load_blurred(folder: str | Path, split: Split, *, channel_order: str = "rgb") -> PairedPictures:
    """Open the pictures in ``blurred`` and ``sharp`` of ``train`` or ``test`` (or ``val``).

    Raises:
        DataError: as ``load_deblurring``.
    """
    place = split_folder(folder, split)
    return _to_deblur(place, pair_up(place / "blurred", place / "sharp"), channel_order)


def load_gopro(folder: str | Path, split: Split, *, gamma: bool = False, channel_order: str = "rgb") -> PairedPictures:
    """Open all sequences in ``train`` or ``test`` (or ``val``), with the arguments of ``load_deblurring``.

    Raises:
        DataError: as ``load_deblurring``.
    """
    place = split_folder(folder, split)
    sequences = [place / name for name in folders_in(place)]
    if not sequences:
        raise DataError(f"{place}: there is neither blurred beside sharp in it, nor a sequence of GOPRO")
    blur = "blur_gamma" if gamma else "blur"
    return _to_deblur(
        place, [pair for path in sequences for pair in pair_up(path / blur, path / "sharp")], channel_order
    )


def split_folder(folder: str | Path, split: Split) -> Path:
    """The folder of a split.

    Raises:
        DataError: it is not there.
    """
    folder, names = Path(folder), of_split(_SPLITS, split, folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    there = [name for name in _SPLITS if (folder / name).is_dir()]
    has = f"it has {' and '.join(there)}" if there else "it has none of " + ", ".join(_SPLITS)
    raise DataError(f"{folder}: there is no folder {' or '.join(names)} in it; {has}")


def _to_deblur(place: Path, pairs: list[tuple[Path, Path]], channel_order: str) -> PairedPictures:
    return PairedPictures(place, tuple(pairs), "picture", DatasetInfo(0, sizes_differ=True), channel_order)
