"""What may be wrong with data on disk, in every layout: one line that names the file and the rule, as soon as known."""

import contextlib
import os
import random
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laid import LAID, MASKS, PAIRS, PICTURES, YEAR
from mutators import flipped_or_cut
from PIL import Image
from scipy.io import savemat
from trees import bands, mask, picture, sbd_mask, sbd_tree, voc_tree

from daukit.datasets import LAYOUTS, load_voc, open_dataset
from daukit.datasets.sbd import read_sbd_mask
from daukit.errors import DataError


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def folder_instead(path):
    path.unlink()
    path.mkdir()


def draw(path, labels):
    (sbd_mask if path.suffix == ".mat" else mask)(path, labels)


# What is done to a file, in which layouts it is a fault, what is said, and if it is known when the data are opened.
OF_PICTURES = {
    "missing": (lambda path: path.unlink(), ("idx", "cifar10", "cifar100", *PAIRS), ".", True),
    "a folder": (folder_instead, ("idx", "cifar10", "cifar100", *PAIRS), ".", True),
    "truncated": (cut, ("idx", "cifar10", "cifar100"), r" bytes|gzip stream is damaged", True),
    "cut in two": (cut, PICTURES, "cannot be read as a picture", False),
    "empty": (lambda path: path.write_bytes(b""), PICTURES, "cannot be read as a picture", False),
    "no picture": (lambda path: path.write_bytes(b"no picture"), PICTURES, "cannot be read as a picture", False),
    "wide": (lambda path: wide(path), PICTURES, "16 bits a channel", False),
}
OF_TARGETS = {
    "missing": (lambda path: path.unlink(), ("idx", *PAIRS), ".", True),
    "a folder": (folder_instead, ("idx", *PAIRS), ".", True),
    "cut in two": (cut, PAIRS, "cannot be read as a", False),
    "empty": (lambda path: path.write_bytes(b""), PAIRS, "cannot be read as a", False),
    "another size": (lambda path: draw(path, bands((12, 13))), PAIRS, "has 12x13 pixels, and ", False),
    "unknown label": (lambda path: draw(path, bands(classes=40)), MASKS, "has a pixel of (label|id) [0-9]+; ", False),
}
CASES = [
    (name, part, fault)
    for part, faults in (("picture", OF_PICTURES), ("target", OF_TARGETS))
    for fault, (_, layouts, _, _) in faults.items()
    for name in layouts
]


def wide(path):
    """A PNG of 16 bits a channel in three colours, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes(14 * 6)) * 12)
    header = struct.pack(">IIBBBBB", 14, 12, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_every_layout_has_a_tree():
    assert {laid.layout for laid in LAID.values()} == set(LAYOUTS)


@pytest.mark.parametrize(("name", "part", "fault"), CASES)
def test_a_fault_of_a_file_is_one_line_that_names_it(tmp_path, name, part, fault):
    spoil, _, said, is_early = {"picture": OF_PICTURES, "target": OF_TARGETS}[part][fault]
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    path = folder / getattr(laid, part)
    spoil(path)
    if is_early:
        with pytest.raises(DataError, match=said) as error:
            laid.open(folder)
    else:
        data = laid.open(folder)
        with pytest.raises(DataError, match=said) as error:
            data.batch(slice(1, 2) if name == "sbd" else slice(1))
    message = str(error.value)
    assert message.startswith(str(folder)) and "\n" not in message
    stem = re.sub("_(gtFine|leftImg8bit).*", "", path.stem)
    absent = (f"{path.parent} has no picture called {stem}", f"{path.parent}: there is no {stem} ")
    assert str(path) in message or any(words in message for words in absent)


def more_of(laid, folder, number):
    """Copies of the first picture and its target, in the lists too where there are lists."""
    for i in range(number):
        for path in (folder / laid.picture, folder / laid.target):
            first, dot, rest = path.name.partition("_gtFine" if "_gtFine" in path.name else "_left")
            stem = first if dot else path.stem
            shutil.copy(path, path.with_name(f"{stem}n{i}{dot}{rest}" if dot else f"{stem}n{i}{path.suffix}"))
    for path in folder.rglob("train.txt"):
        stem = (folder / laid.picture).stem
        if stem in path.read_text().split():
            path.write_text(path.read_text() + "".join(f"{stem}n{i}\n" for i in range(number)))


@pytest.mark.parametrize("name", PAIRS)
def test_to_open_a_folder_is_to_look_at_no_file_in_it(tmp_path, monkeypatch, name):
    """As many calls for 20 pictures more, and none decodes."""
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    stat, looks = os.stat, []
    monkeypatch.setattr(Image, "open", None)

    def opened():
        looks.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", lambda *args, **more: looks.append(args) or stat(*args, **more))
            found = laid.open(folder)
        return len(found), len(looks)

    few, looks_at_few = opened()
    more_of(laid, folder, 20)
    assert opened() == (few + 20, looks_at_few)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "sbd"])
def test_an_empty_split_is_told_when_it_is_opened(tmp_path, name):
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    for path in [path for path in folder.rglob("*") if "train" in path.name and path.is_dir()]:
        shutil.rmtree(path)
        path.mkdir()
    for path in folder.rglob("train.txt"):
        path.write_text("")
    with pytest.raises(DataError, match=r"there is no |names no picture|there is neither ") as error:
        laid.open(folder)
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)
    assert len(laid.open(folder, "test")) > 0


LISTS = {
    "empty": ("", "names no picture; it must name one a line"),
    "blank lines": ("\n\n", "names no picture"),
    "a gap": ("a\n\nb\n", "line 2 is '', and must be the name of a picture, without folder and ending"),
    "a folder above": ("../a\n", "line 1 is '../a', and must be the name of a picture"),
    "above itself": ("..\n", "line 1 is '..', and must be"),
    "an absolute path": ("a\n/etc/passwd\n", "line 2 is '/etc/passwd', and must be"),
    "a folder of Windows": ("a\\b\n", r"line 1 is 'a\\b', and must be"),
    "not text": (b"\x89PNG\r\n\x1a\n\xff", "byte 0 is not UTF-8"),
    "zeros": (bytes(5000), r"line 1 is '\x00\x00"),
    "twice": ("a\nb\na\n", "line 3 names a again, as line 1 does; drop one"),
    "an ending": ("a.jpg\n", "line 1 names a.jpg, and there is no "),
    "unknown": ("a\nzz\n", "line 2 names zz, and there is no "),
}


@pytest.mark.parametrize("fault", LISTS)
@pytest.mark.parametrize(
    ("path", "split"),
    [(f"{YEAR}/ImageSets/Segmentation/train.txt", "train"), (f"{YEAR}/ImageSets/Segmentation/val.txt", "test"),
     ("SBD/train.txt", "train")],
)  # fmt: skip
def test_a_fault_of_a_list_is_one_line_that_names_it(tmp_path, path, split, fault):
    content, said = LISTS[fault]
    folder = voc_tree(tmp_path / "data")
    if path.startswith("SBD"):
        sbd_tree(folder / "SBD")
        content = content if isinstance(content, bytes) else re.sub(r"^[ab]$", "d", content, flags=re.M, count=1)
        content = content if isinstance(content, bytes) else re.sub(r"^a$", "d", content, flags=re.M)
        said = said.replace("names a again", "names d again")
    (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(said)) as error:
        load_voc(folder, split)
    assert str(error.value).startswith(f"{folder / path}: ") and "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + 2 * len(str(folder))


def test_a_list_that_is_missing_is_told(tmp_path):
    folder = voc_tree(tmp_path / "data")
    (folder / YEAR / "ImageSets/Segmentation/train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt: cannot be read: No such file"):
        load_voc(folder, "train")


def test_a_list_of_another_system_is_read(tmp_path):
    folder = voc_tree(tmp_path / "data")
    (folder / YEAR / "ImageSets/Segmentation/train.txt").write_bytes(b"\xef\xbb\xbfb\r\na\r\n\r\n")
    assert [path.stem for path, _ in load_voc(folder, "train").pairs] == ["b", "a"]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return voc_tree(tmp_path_factory.mktemp("voc") / "data")


@settings(max_examples=80, deadline=None)
@given(text=st.lists(st.sampled_from(["a", "b", "c", "x", "..", "/", "\\", "\n", "\r\n", ".", " ", "\0", "é", "\x85"])))
def test_no_list_leads_out_of_the_folder(voc, text):
    path = voc / YEAR / "ImageSets/Segmentation/train.txt"
    path.write_bytes("".join(text).encode())
    try:
        pairs = load_voc(voc, "train").pairs
    except DataError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
    else:
        names = [picture.stem for picture, _ in pairs]
        assert names and len(set(names)) == len(names) and set(names) <= set("abcde")
        assert all(picture.parent == voc / YEAR / "JPEGImages" for picture, _ in pairs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_of_matlab_is_a_mask_or_one_error(tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    if not (path.parent / "whole.mat").exists():
        sbd_mask(path.parent / "whole.mat", bands())
    path.write_bytes(flipped_or_cut((path.parent / "whole.mat").read_bytes(), random.Random(seed)))
    try:
        labels = read_sbd_mask(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
    else:
        assert labels.dtype == torch.uint8 and labels.dim() == 2


def test_what_is_no_mask_of_sbd_is_told(tmp_path):
    path = tmp_path / "x.mat"
    for content, said in (
        ({"GTcls": {"Segmentation": np.ones((3, 4))}}, "GTcls.Segmentation is float64 of 2 axes, and must be uint8"),
        ({"GTcls": {"Segmentation": np.ones((3, 4, 2), np.uint8)}}, "is uint8 of 3 axes"),
        ({"GTinst": {"Segmentation": np.ones((3, 4), np.uint8)}}, r"\('GTcls'\); copy it again"),
        ({"GTcls": 3.0}, "cannot be read as a mask of SBD"),
    ):
        savemat(path, content)
        with pytest.raises(DataError, match=said) as error:
            read_sbd_mask(path)
        assert str(error.value).startswith(f"{path}: ")
    picture(tmp_path / "y.png")
    with pytest.raises(DataError, match=r"y\.png: cannot be read as a mask of SBD"):
        read_sbd_mask(tmp_path / "y.png")


def test_a_file_that_unpacks_to_more_than_it_may_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr("daukit.datasets.sbd.MAX_BYTES", 10_000)
    path, packed = tmp_path / "x.mat", zlib.compress(bytes(10_000))
    sbd_mask(path, bands())
    head = path.read_bytes()[:124]
    for order, kind in (("<", b"\0\1IM"), (">", b"\1\0MI")):
        path.write_bytes(head + kind + struct.pack(f"{order}II", 15, len(packed)) + packed)
        with pytest.raises(DataError, match=r"x\.mat: cannot be read as a mask of SBD.*unpacks to more than 10,000"):
            read_sbd_mask(path)


NAMES = [
    "train", "test", "val", "images", "masks", "blurred", "sharp", "seq", "blur", "a.png", "a.jpg", "classes.txt",
    "train.bin", "VOC2012", "VOCdevkit", "JPEGImages", "SegmentationClass", "ImageSets", "Segmentation", "train.txt",
    "val.txt", "SBD", "cls", "img", "leftImg8bit", "gtFine", "aachen", "data_batch_1.bin", "train-images-idx3-ubyte",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    paths=st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=12),
    layout=st.sampled_from([None, *LAYOUTS]),
    split=st.sampled_from(["train", "test"]),
)
def test_any_tree_is_opened_or_refused_in_one_line(tmp_path_factory, paths, layout, split):
    """Files in the place of folders and folders in the place of files, too."""
    folder = tmp_path_factory.mktemp("any") / "data"
    folder.mkdir()
    for parts in paths:
        path = folder.joinpath(*parts)
        with contextlib.suppress(OSError):  # a folder above it is a file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a\n")
    for task in ("classification", "segmentation", "deblurring"):
        if layout is None or any(laid.layout == layout and laid.task == task for laid in LAID.values()):
            try:
                assert len(open_dataset(folder, split, layout, task=task)) > 0
            except DataError as error:
                assert str(error).startswith(str(folder)) and "\n" not in str(error)
