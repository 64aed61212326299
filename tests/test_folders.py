"""Folders of pictures and their targets: what comes out of them, and one line for each thing that may be wrong."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from trees import bands, deblurring_tree, gopro_tree, mask, picture, segmentation_tree

from daukit.datasets import load_deblurring, load_segmentation
from daukit.errors import DataError


def pixels(path, mode="RGB"):
    """What Pillow reads, (C, H, W)."""
    return torch.from_numpy(np.array(Image.open(path).convert(mode))).reshape(12, 14, -1).permute(2, 0, 1)


def test_masks_are_places_in_a_palette_or_grey_levels(tmp_path):
    data = load_segmentation(segmentation_tree(tmp_path), "train")
    batch = data.batch(slice(None))
    assert torch.equal(batch.images, torch.stack([pixels(tmp_path / f"train/images/{n}.png") for n in "ab"]))
    assert torch.equal(batch.targets, torch.from_numpy(bands()).to(torch.uint8).expand(2, -1, -1))
    assert (data.info.num_classes, data.info.class_names, data.info.ignore_index) == (3, ("sky", "wall", "road"), 255)
    assert len(load_segmentation(tmp_path, "test")) == 1  # its folder is val


def test_pictures_are_taken_one_at_a_time_in_the_order_of_their_names(tmp_path):
    folder = deblurring_tree(tmp_path)
    data = load_deblurring(folder, "train")
    batch = data.batch(torch.tensor([1]))
    assert torch.equal(batch.images[0], pixels(folder / "train/blurred/b.png"))
    assert torch.equal(batch.targets[0], pixels(folder / "train/sharp/b.png"))


def test_sequences_of_gopro_are_one_set(tmp_path):
    folder = gopro_tree(tmp_path)
    plain, gamma = (load_deblurring(folder, "train", gamma=gamma) for gamma in (False, True))
    assert len(plain) == len(gamma) == 4 and len(load_deblurring(folder, "test")) == 2
    assert torch.equal(plain.batch(slice(3, 4)).images[0], pixels(folder / "train/GOPR02/blur/000001.png"))
    assert torch.equal(gamma.batch(slice(3, 4)).images[0], pixels(folder / "train/GOPR02/blur_gamma/000001.png"))
    assert torch.equal(gamma.batch(slice(3, 4)).targets[0], pixels(folder / "train/GOPR02/sharp/000001.png"))


def test_channels_come_in_the_order_of_a_network(tmp_path):
    folder = deblurring_tree(tmp_path)
    path = folder / "test/blurred/c.png"
    bgr, gray = (load_deblurring(folder, "test", channel_order=order) for order in ("bgr", "gray"))
    assert torch.equal(bgr.batch(slice(1)).images[0], pixels(path).flip(0))
    assert torch.equal(gray.batch(slice(1)).images[0], pixels(path, "L"))
    assert (bgr.preprocessing().std, gray.preprocessing().mean) == ((1.0,) * 3, (0.0,))


def test_a_turned_picture_is_upright_beside_its_mask(tmp_path):
    folder = segmentation_tree(tmp_path)
    image = Image.open(folder / "val/images/c.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "val/images/c.png", exif=exif)
    batch = load_segmentation(folder, "test").batch(slice(1))
    assert torch.equal(batch.images[0], torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert batch.targets.shape == (1, 12, 14)


def test_the_digest_tells_files_by_name_size_and_classes(tmp_path):
    folder = segmentation_tree(tmp_path)
    digests = [load_segmentation(folder, "train").digest(), load_segmentation(folder, "test").digest()]
    moved = tmp_path / "moved"
    (tmp_path / "train").rename(tmp_path / "kept")
    moved.mkdir()
    (tmp_path / "kept").rename(moved / "train")
    (tmp_path / "classes.txt").rename(moved / "classes.txt")
    digests.append(load_segmentation(moved, "train").digest())
    assert digests[0] == digests[2] != digests[1]
    (moved / "classes.txt").write_text("sky\nwall\npath\n")
    digests.append(load_segmentation(moved, "train").digest())
    picture(moved / "train/images/a.png", seed=7, size=(12, 13))
    digests.append(load_segmentation(moved, "train").digest())
    assert len(set(digests)) == 4


def test_nothing_is_decoded_before_it_is_needed(tmp_path):
    folder = segmentation_tree(tmp_path)
    (folder / "train/images/a.png").write_bytes(b"no picture")
    data = load_segmentation(folder, "train")
    assert len(data.batch(slice(1, 2))) == 1
    with pytest.raises(DataError, match=r"train/images/a\.png: cannot be read as a picture"):
        data.batch(slice(1))


FAULTS = {
    "there is no such folder": (lambda folder: (folder / "train").rename(folder / "x"), "no folder train in it"),
    "no masks": (lambda folder: (folder / "train/masks").rename(folder / "x"), "train/masks: there is no such folder"),
    "an empty split": (
        lambda folder: [path.unlink() for path in (folder / "train/images").iterdir()],
        "train/images: there is no picture (.png, .jpg, .jpeg) in it",
    ),
    "a picture alone": (
        lambda folder: picture(folder / "train/images/d.png"),
        "train/images/d.png: has no partner: ",
    ),
    "a mask alone": (lambda folder: mask(folder / "train/masks/d.png", bands()), "train/masks/d.png: has no partner: "),
    "two of a name": (lambda folder: picture(folder / "train/images/a.jpg"), "train/images/a.png: a.jpg is there too"),
    "no names of classes": (lambda folder: (folder / "classes.txt").unlink(), "classes.txt: "),
    "another size": (
        lambda folder: mask(folder / "train/masks/a.png", bands((12, 13))),
        "train/masks/a.png: has 12x13 pixels, and ",
    ),
    "sizes that differ": (
        lambda folder: [
            picture(folder / "train/images/b.png", (9, 9)),
            mask(folder / "train/masks/b.png", bands((9, 9))),
        ],
        "train/images/b.png: has 9x9 pixels, and ",
    ),
    "an unknown label": (
        lambda folder: mask(folder / "train/masks/a.png", bands(classes=4)),
        "train/masks/a.png: has a pixel of label 3; there are 3 classes, of labels 0 to 2",
    ),
    "a mask of colours": (
        lambda folder: picture(folder / "train/masks/a.png"),
        "train/masks/a.png: is a PNG of mode RGB, and masks are PNG files, grey with 8 bits or with a palette",
    ),
    "a truncated picture": (
        lambda folder: (folder / "train/images/a.png").write_bytes((folder / "train/images/a.png").read_bytes()[:300]),
        "train/images/a.png: cannot be read as a picture (",
    ),
    "a truncated mask": (
        lambda folder: (folder / "train/masks/a.png").write_bytes((folder / "train/masks/a.png").read_bytes()[:-40]),
        "train/masks/a.png: cannot be read as a picture (",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_file_and_the_rule(tmp_path, fault):
    folder = segmentation_tree(tmp_path)
    spoil, said = FAULTS[fault]
    spoil(folder)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        load_segmentation(folder, "train").batch(slice(None))
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)


def test_a_folder_without_pairs_to_deblur_says_what_it_looked_for(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="neither blurred beside sharp in it, nor a sequence of GOPRO"):
        load_deblurring(tmp_path, "train")
    with pytest.raises(DataError, match="only sequences as in GOPRO have blur_gamma"):
        load_deblurring(deblurring_tree(tmp_path), "train", gamma=True)
    with pytest.raises(DataError, match=r"no folder test or val in it; it has none of train, val, test$"):
        load_segmentation(tmp_path / "train", "test")
