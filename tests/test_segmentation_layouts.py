"""PASCAL VOC, with and without SBD, and Cityscapes: their splits and labels, beside lists written by hand."""

import pytest
import torch
from trees import bands, cityscapes_tree, mask, names_in, sbd_tree, voc_tree

from daukit.datasets import layouts_in, load_cityscapes, load_voc, open_dataset
from daukit.datasets.cityscapes import read_label_ids
from daukit.errors import DataError

YEARS = ("", "VOC2012", "VOCdevkit/VOC2012", "VOCdevkit/VOC2011", "TrainVal/VOCdevkit/VOC2011")
PLACES_OF_SBD = ("data/SBD", "data/benchmark_RELEASE/dataset", "SBD", "SBD/benchmark_RELEASE/dataset")


def files(data, root):
    """Each picture and its mask, by their places under a folder."""
    return [tuple(path.relative_to(root).as_posix() for path in pair) for pair in data.pairs]


def voc(names, year="VOCdevkit/VOC2012"):
    return [(f"{year}/JPEGImages/{name}.jpg", f"{year}/SegmentationClass/{name}.png") for name in names]


def sbd(names, place):
    return [(f"{place}/img/{name}.jpg", f"{place}/cls/{name}.mat") for name in names]


@pytest.mark.parametrize("year", YEARS)
def test_the_splits_of_voc_are_its_lists(tmp_path, year):
    voc_tree(tmp_path / "data", year=year)
    assert layouts_in(tmp_path / "data") == ["voc"]
    place = f"data/{year}".rstrip("/")
    for split, names in (("train", "ab"), ("test", "cde")):
        data = load_voc(tmp_path / "data", split)
        assert files(data, tmp_path) == voc(names, place)
        assert data.info.num_classes == 21 and data.info.ignore_index == 255
        assert data.info.class_names[0] == "background" and data.info.class_names[20] == "tvmonitor"
    assert torch.equal(
        load_voc(tmp_path / "data", "test").batch(slice(2, 3)).targets[0], torch.tensor(bands(classes=6))
    )


@pytest.mark.parametrize("place", PLACES_OF_SBD)
def test_with_sbd_its_training_pictures_are_learnt_from_and_not_measured_on(tmp_path, place):
    """Pictures of VOC's own training list keep VOC's masks; d, which VOC lists to measure on, has SBD's."""
    voc_tree(tmp_path / "data")
    alone = {split: load_voc(tmp_path / "data", split).digest() for split in ("train", "test")}
    sbd_tree(tmp_path / place)
    train, test = load_voc(tmp_path / "data", "train"), load_voc(tmp_path / "data", "test")
    assert files(train, tmp_path) == voc("ab", "data/VOCdevkit/VOC2012") + sbd("df", place)
    assert files(test, tmp_path) == voc("ce", "data/VOCdevkit/VOC2012")
    labels = torch.stack([torch.tensor(bands(classes=number)) for number in (2, 3, 11, 12)])
    assert torch.equal(train.batch(slice(None)).targets, labels)
    assert len({train.digest(), test.digest(), *alone.values()}) == 4


def test_what_is_measured_on_is_never_learnt_from(tmp_path):
    """Also where the lists of VOC overlap, as those of a person may."""
    voc_tree(tmp_path)
    names_in(tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "abc")
    sbd_tree(tmp_path / "SBD")
    train, test = load_voc(tmp_path, "train"), load_voc(tmp_path, "test")
    assert files(train, tmp_path) == voc("ab") + sbd("df", "SBD") and files(test, tmp_path) == voc("ce")


def test_a_folder_of_the_working_directory_finds_sbd_beside_it(tmp_path, monkeypatch):
    sbd_tree(tmp_path / "SBD")
    monkeypatch.chdir(voc_tree(tmp_path / "data"))
    assert len(load_voc(".", "train")) == 4 and len(load_voc(".", "train").digest()) == 64
    monkeypatch.chdir(tmp_path / "data/VOCdevkit")
    assert len(load_voc("..", "train")) == 4


def test_two_years_in_a_folder_are_told_apart_by_the_caller(tmp_path):
    for year in ("VOC2011", "VOC2012"):
        voc_tree(tmp_path, year=f"VOCdevkit/{year}")
    with pytest.raises(DataError, match=r"holds .*VOC2011 and .*VOC2012; give the folder of one of them"):
        open_dataset(tmp_path, "train", task="segmentation")
    assert len(open_dataset(tmp_path / "VOCdevkit/VOC2012", "train", task="segmentation")) == 2


def test_evaluation_needs_neither_scipy_nor_the_pictures_of_sbd(tmp_path, monkeypatch):
    voc_tree(tmp_path)
    names_in(tmp_path / "SBD/train.txt", "bdf")
    monkeypatch.setattr("daukit.datasets.sbd.find_spec", lambda name: None)
    assert files(load_voc(tmp_path, "test"), tmp_path) == voc("ce")
    with pytest.raises(DataError, match=r'cls: is read by scipy, .* not installed: pip install "daukit\[train\]"'):
        load_voc(tmp_path, "train")


def test_sbd_that_covers_all_pictures_to_measure_on_is_told(tmp_path):
    voc_tree(tmp_path)
    names_in(tmp_path / "SBD/train.txt", "cdef")
    with pytest.raises(DataError, match=r"val\.txt: all its pictures are in .*SBD/train\.txt, so none is left"):
        load_voc(tmp_path, "test")


CITIES = {  # written by hand, from the data set's paper: ids of the classes in the order of its benchmark
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip


def test_the_splits_of_cityscapes_are_its_folders(tmp_path):
    folder = cityscapes_tree(tmp_path)
    expected = {
        "train": [
            "train/aachen/aachen_000000_000000",
            "train/aachen/aachen_000000_000001",
            "train/ulm/ulm_000000_000000",
        ],
        "test": ["val/lindau/lindau_000000_000000"],
    }
    for split, names in expected.items():
        data = load_cityscapes(folder, split)
        assert files(data, folder) == [
            (f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_labelIds.png") for name in names
        ]
        assert data.info.class_names == tuple(CITIES) and data.info.ignore_index == 255
    labels = load_cityscapes(folder, "test").batch(slice(1)).targets.flatten().tolist()
    by_id = dict(zip(CITIES.values(), range(19), strict=True))
    assert labels == [by_id.get(pixel % 34, 255) for pixel in range(12 * 14)]


def test_license_plates_are_ignored_and_other_ids_unknown(tmp_path):
    mask(tmp_path / "plates.png", [[7, 255]], palette=False)
    assert read_label_ids(tmp_path / "plates.png").tolist() == [[0, 255]]
    for value in (34, 254):
        mask(tmp_path / "other.png", [[7, value]], palette=False)
        with pytest.raises(
            DataError, match=rf"other\.png: has a pixel of id {value}; the ids of Cityscapes are 0 to 33"
        ):
            read_label_ids(tmp_path / "other.png")
