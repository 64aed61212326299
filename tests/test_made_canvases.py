"""Canvases and scenes to segment: masks are where the pieces are, splits share nothing, bytes follow from the seed."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from example_scripts import ROOT, bytes_below, run, script, write_picture
from idx import write_idx
from PIL import Image

from daukit.datasets import load_segmentation
from daukit.errors import DataError, OutputError

pasting, make_canvases, make_scenes = (
    script("segmentation", name) for name in ("pasting", "make_canvases", "make_scenes")
)
contact_sheet = script("data", "contact_sheet")
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """A Fashion-MNIST whose images have one brightness each: 40 to train (1 to 40) and 20 to test (101 to 120)."""
    folder = tmp_path_factory.mktemp("items")
    for part, first, count in (("train", 1, 40), ("t10k", 101, 20)):
        brightness = torch.arange(first, first + count, dtype=torch.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", brightness[:, None, None].expand(-1, 28, 28).contiguous())
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", brightness % 10)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Stamps of red with green that counts them, backgrounds of blue with green that counts them."""
    folder = tmp_path_factory.mktemp("parts")
    numbers = itertools.count(1)
    for places in make_scenes.PLACES.values():
        for name in "abcd":
            write_picture(folder / "stamps" / places[0] / f"{name}.png", 60, 60, color=(255, next(numbers), 0, 255))
    write_picture(folder / "stamps/animals/birds/small.png", 54, 54, color=(255, 200, 0, 255))
    write_picture(folder / "stamps/animals/birds/cartoon/drawn.png", 60, 60, color=(255, 201, 0, 255))
    for number in range(7):
        write_picture(folder / f"photographs/explore_monuments-{number}.webp", 110, 120, color=(0, number, 200))
    write_picture(folder / "photographs/erase-animal.webp", 110, 120, color=(0, 99, 200))
    return folder


def inside(mask):
    """Pixels whose eight neighbours are of one class with them."""
    same = np.zeros(mask.shape, bool)
    around = np.lib.stride_tricks.sliding_window_view(mask, (3, 3))
    same[1:-1, 1:-1] = (around == mask[1:-1, 1:-1, None, None]).all((2, 3))
    return same


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_is_that_of_the_pieces_in_sight_and_half_of_each_object_is(seed):
    rng = np.random.default_rng(seed)
    scene, labels, areas = pasting.Scene.on(np.zeros((40, 50), np.float32)), [0], [0]

    def piece():
        height, width = rng.integers(8, 30, 2)
        made.append(
            pasting.Piece(np.full((height, width), len(labels)), np.ones((height, width)), int(rng.integers(3)))
        )
        return made[-1]

    for _ in range(12):
        made, before = [], scene.light.copy()
        scene.add(piece, rng)
        if (scene.light != before).any():
            labels, areas = [*labels, made[-1].label], [*areas, made[-1].light.size]
        number = scene.light.astype(int)  # each piece is as bright as its number
        assert (scene.mask == np.array(labels)[number]).all()
        assert all(2 * (number == i).sum() >= areas[i] for i in range(len(labels)) if labels[i])
    assert len(labels) > 4


def test_fragments_are_small_parts_of_their_items():
    shape = np.zeros((28, 28), np.uint8)
    shape[4:25, 6:20] = 255
    for seed in range(10):
        part = make_canvases._fragment(shape, np.random.default_rng(seed))
        assert (part <= shape).all() and 0.1 < (part > 0).sum() / (shape > 0).sum() <= 0.4


def test_no_item_is_in_two_splits(items):
    made = make_canvases.read_items(items, seed=0)
    brightness = {split: set(made[split].images[:, 0, 0].tolist()) for split in SPLITS}
    assert brightness["test"] == set(range(101, 121)) and len(brightness["val"]) == len(brightness["train"]) == 20
    assert brightness["val"] | brightness["train"] == set(range(1, 41))
    assert all((made[split].images[:, 0, 0] % 10 == made[split].labels).all() for split in SPLITS)


def test_bright_pixels_of_canvases_are_those_of_items(monkeypatch):
    monkeypatch.setattr(make_canvases, "FRAGMENTS", (0, 0))
    monkeypatch.setattr(make_canvases, "_texture", lambda rng: np.zeros((96, 96), np.float32))
    bright = make_canvases.Items(np.full((1, 28, 28), 255, np.uint8), np.array([6], np.uint8))
    for number in range(4):
        picture, mask = make_canvases.make_canvas(bright, 0, "train", number)
        assert set(np.unique(mask)) == {0, 7}
        assert ((picture > 45) == (mask == 7))[inside(mask)].all()  # 0.4 * 0.9 * 255 = 92 less noise, and 0 with noise


@pytest.mark.parametrize("size", [96, 144])
def test_red_pixels_of_scenes_are_those_of_things(size, parts):
    things = make_scenes.find_things(parts / "stamps")
    made = make_scenes.read_parts(things, sorted((parts / "photographs").glob("explore*")), seed=0)
    for number in range(4):
        picture, mask = make_scenes.make_scene(made["train"], 0, "train", number, size)
        assert picture.shape == (size, size, 3) and mask.shape == (size, size)
        assert mask.any() and ((picture[..., 0] > picture[..., 2]) == (mask > 0))[inside(mask)].all()


def test_no_thing_and_no_photograph_is_in_two_splits_and_drawn_or_small_ones_are_in_none(parts):
    things = make_scenes.find_things(parts / "stamps")
    made = make_scenes.read_parts(things, sorted((parts / "photographs").glob("explore*")), seed=0)
    for kind, count in ("things", 32), ("photographs", 7):
        pictures = {split: getattr(made[split], kind) for split in SPLITS}
        if kind == "things":
            assert all(len(of) >= 1 for split in SPLITS for of in pictures[split])
            pictures = {split: list(itertools.chain(*of)) for split, of in pictures.items()}
        green = [picture.getpixel((5, 5))[1] for split in SPLITS for picture in pictures[split]]
        assert len(green) == len(set(green)) == count and max(green) <= count


@pytest.mark.parametrize("name", ["canvases", "scenes"])
def test_bytes_follow_from_the_seed_and_a_picture_does_not_depend_on_how_many_there_are(
    name, items, parts, tmp_path, monkeypatch
):
    given = [items] if name == "canvases" else [parts / "stamps", parts / "photographs"]
    make = partial(run, monkeypatch, make_canvases if name == "canvases" else make_scenes, *given)
    make(tmp_path / "a", "--train", 1, "--val", 1, "--test", 1)
    make(tmp_path / "b", "--train", 2, "--val", 0, "--test", 1)
    make(tmp_path / "c", "--train", 1, "--val", 1, "--test", 1, "--seed", 1)
    first, more, other = (bytes_below(tmp_path / folder) for folder in "abc")
    assert len(first) == 1 + 2 * 3 and first.keys() == other.keys()
    assert all(first[path] == more[path] for path in first if not path.startswith("val"))
    assert all(first[path] != other[path] for path in first if "images" in path)
    with pytest.raises(OutputError, match="is there already"):
        make(tmp_path / "a")
    read = load_segmentation(tmp_path / "a", "train")
    assert len(read) == 1 and read.info.num_classes == (11 if name == "canvases" else 9)


def test_too_few_stamps_are_an_error(tmp_path):
    with pytest.raises(DataError, match="has 0 of bird; 3 are needed"):
        make_scenes.find_things(tmp_path)


def test_the_sample_is_200_canvases_with_masks():
    sample = load_segmentation(ROOT / "segmentation" / "canvases-sample", "test")
    assert len(sample) == 200 and sample.info.class_names == make_canvases.CLASSES
    assert sample.batch(slice(200)).targets.unique().tolist() == list(range(11))


def test_the_contact_sheet_is_that_of_the_sample():
    place = ROOT / "segmentation" / "canvases-sample" / "test"
    with Image.open(ROOT / "segmentation" / "canvases.png") as image:
        sheet = np.asarray(image)
    assert (sheet == np.asarray(contact_sheet.contact_sheet(place, columns=8, rows=2, zoom=1))).all()
    with Image.open(place / "masks" / "00010.png") as mask:  # the third of the second row
        assert (sheet[3 * 96 :, 2 * 96 : 3 * 96] == np.asarray(mask.convert("RGB"))).all()
    with pytest.raises(DataError, match="name one part of a data set"):
        contact_sheet.contact_sheet(place.parent, columns=8, rows=2, zoom=1)
