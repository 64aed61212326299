"""PASCAL VOC 2011 and 2012, with or without the masks of Hariharan et al. (2011), which are called SBD."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from daukit.datasets.base import DatasetInfo, Split, of_split
from daukit.datasets.classes import read_class_names
from daukit.datasets.listing import by_stem, read_names
from daukit.datasets.pairs import PairedPictures
from daukit.datasets.sbd import check_scipy, read_sbd_mask
from daukit.errors import DataError
from daukit.pictures import read_mask

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
IGNORED = 255
"""Label of the borders of things, which are not counted."""

PLACES = ("", "VOC20??/", "VOCdevkit/VOC20??/", "TrainVal/VOCdevkit/VOC20??/")
"""Where the folders of a year may be, as patterns: the last one is how VOC 2011 unpacks."""

_PARTS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_SBD = ("SBD", "SBD/dataset", "SBD/benchmark_RELEASE/dataset", "benchmark_RELEASE/dataset")
_LISTS: dict[Split, str] = {"train": "train.txt", "val": "val.txt", "test": "val.txt"}


def load_voc(
    folder: str | Path, split: Split, classes: str | Path | None = None, *, channel_order: str = "rgb"
) -> PairedPictures:
    """Open the pictures of ``ImageSets/Segmentation/train.txt`` or ``val.txt``; none is decoded before it is needed.

    With SBD in the folder or beside it, in ``SBD`` or ``benchmark_RELEASE/dataset``, the split is that of section 4.3
    of the paper. To learn from there are VOC's training pictures, with VOC's masks, and all others in SBD's
    ``train.txt``, with SBD's masks; to measure on there are VOC's validation pictures that are not in SBD's
    ``train.txt``. The two have no picture in common.

    Args:
        folder: of a year, with ``JPEGImages``, ``SegmentationClass`` and ``ImageSets``, or a folder above it.
        split: ``"train"``, or ``"val"`` or ``"test"``, which are both ``val.txt``.
        classes: text file with the name of each of the 21 classes on a line; default: ``CLASSES``.
        channel_order: how to read pictures.

    Raises:
        DataError: something is missing, a list names what is not there, or scipy is missing, which reads SBD's masks.
    """
    root = _year(Path(folder))
    lists, sbd = root / "ImageSets/Segmentation", _sbd_of(Path(folder), root)
    listed = lists / of_split(_LISTS, split, folder)
    pairs = _listed(listed, by_stem(root / _PARTS[0]), by_stem(root / _PARTS[1], (".png",)))
    if sbd is not None and split == "train":
        check_scipy(sbd / "cls")
        learnt = _listed(sbd / "train.txt", by_stem(sbd / "img"), by_stem(sbd / "cls", (".mat",)))
        measured = set(read_names(lists / "val.txt")) - set(learnt)
        both = pairs | {name: pair for name, pair in learnt.items() if name not in pairs}
        pairs = {name: pair for name, pair in both.items() if name not in measured}
    elif sbd is not None:
        learnt_names = set(read_names(sbd / "train.txt"))
        pairs = {name: pair for name, pair in pairs.items() if name not in learnt_names}
        if not pairs:
            raise DataError(f"{lists / 'val.txt'}: all its pictures are in {sbd / 'train.txt'}, so none is left")
    names = CLASSES if classes is None else read_class_names(classes, len(CLASSES))
    info = DatasetInfo(len(names), names, IGNORED, sizes_differ=True)
    return PairedPictures(root, tuple(pairs.values()), "mask", info, channel_order, _read_labels)


def _year(folder: Path) -> Path:
    """The folder of the one year that there is."""
    found = [folder] if _is_year(folder) else []
    found += [path for place in PLACES[1:] for path in sorted(folder.glob(place)) if _is_year(path)]
    if not found:
        raise DataError(f"{folder}: holds no PASCAL VOC: there is no {_PARTS[0]}, nor VOCdevkit/VOC2012/{_PARTS[0]}")
    if len(found) > 1:
        raise DataError(f"{folder}: holds {found[0]} and {found[1]}; give the folder of one of them")
    return found[0]


def _is_year(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in _PARTS)


def _sbd_of(folder: Path, root: Path) -> Path | None:
    """SBD in the folder or beside it, or beside the year's folder."""
    beside = folder / ".." if folder.name in ("", "..") else folder.parent  # pathlib takes . for the parent of ..
    for place in (folder, root, root.parent, beside):
        for name in _SBD:
            if any((place / name / part).exists() for part in ("train.txt", "cls", "img")):
                return place / name
    return None


def _listed(list_of_names: Path, pictures: dict[str, Path], masks: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """The pictures in a list and their masks, by name."""
    pairs = {}
    for number, name in enumerate(read_names(list_of_names), start=1):
        for files in (pictures, masks):
            if name not in files:
                some = next(iter(files.values()))
                missing = some.with_name(f"{name}{some.suffix}")
                raise DataError(f"{list_of_names}: line {number} names {name}, and there is no {missing}")
        pairs[name] = pictures[name], masks[name]
    return pairs


def _read_labels(path: Path) -> Tensor:
    return read_sbd_mask(path) if path.suffix.lower() == ".mat" else read_mask(path)
