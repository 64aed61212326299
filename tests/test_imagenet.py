"""Folders of pictures by class: their lists, their images, and each fault in one line that names the file."""

import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import CLASSES, class_folders, flat_val, scene
from PIL import Image

import daukit
from daukit.datasets import ImageDataset, fitted, layouts_in, open_dataset
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.transforms import RandomCrop, for_training, in_epoch
from daukit.workflows.train_networks import new_network

SMALL = Preprocessing((0.5,) * 3, (0.2,) * 3, "rgb", (16, 20))


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "data")


def test_pictures_are_listed_by_class_in_the_order_of_their_names(folder):
    assert layouts_in(folder) == ["imagenet"]
    (folder / "train" / "apple" / "notes.txt").touch()
    (folder / "train" / "apple" / "._train_0.png").touch()
    (folder / "train" / ".cache").mkdir()
    for split, part, count in (("train", "train", 3), ("test", "val", 2)):
        data = open_dataset(folder, split)
        paths = [data.path(index) for index in range(len(data))]
        assert paths == [
            path
            for name in CLASSES
            for path in sorted((folder / part / name).iterdir())
            if path.suffix != ".txt" and not path.name.startswith(".")
        ]
        assert data.labels.tolist() == [label for label in range(3) for _ in range(count)]
        assert data.info.class_names == CLASSES and data.info.num_classes == 3


def test_names_of_any_bytes_are_kept(folder):
    for name in ("ü.png", "日本.jpg", os.fsdecode(b"\xff.png")):
        shutil.copy(folder / "train" / "brick" / "train_1.png", folder / "train" / "brick" / name)
    data = open_dataset(folder, "train")
    assert {data.path(index).name for index in range(len(data))} >= {"ü.png", "日本.jpg", os.fsdecode(b"\xff.png")}
    assert len(data.digest()) == 64


def test_a_list_says_the_classes_of_validation_pictures_in_one_folder(folder):
    labels = flat_val(folder)
    for has_train in (True, False):
        if not has_train:
            shutil.rmtree(folder / "train")
        data = open_dataset(folder, "test")
        assert data.labels.tolist() == labels and data.info.class_names == CLASSES
        assert data.path(0).name == "ILSVRC2012_val_00000001.jpg" or data.path(0).parent == folder / "val"


def test_images_are_the_middle_of_the_resized_picture(folder):
    data = fitted(open_dataset(folder, "test"), SMALL)
    batch = data.batch(torch.tensor([4, 0]))
    assert batch.targets.tolist() == [2, 0] and batch.images.shape == (2, 3, 16, 20)
    for image, index in zip(batch.images, (4, 0), strict=True):
        picture = Image.open(data.path(index)).convert("RGB")
        width, height = picture.size
        side = 23  # 20 * 256 / 224
        scale = side / min(width, height)
        whole = np.array(picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR))
        top, left = (whole.shape[0] - 16) // 2, (whole.shape[1] - 20) // 2
        assert np.array_equal(image.permute(1, 2, 0).numpy(), whole[top : top + 16, left : left + 20])


def test_networks_of_224_and_227_pixels_see_pictures_of_256():
    from daukit.datasets.crops import shorter_side

    assert [shorter_side((size, size)) for size in (224, 227, 112)] == [256, 256, 128]


def test_a_training_image_depends_on_seed_epoch_and_place_alone(folder):
    data = for_training(open_dataset(folder, "train"), SMALL, "area", True)
    one, other = in_epoch(data, 3, 1), in_epoch(data, 3, 2)
    all_at_once = one.batch(slice(None)).images
    assert all_at_once.shape == (9, 3, 16, 20)
    alone = [one.batch(torch.tensor([index])).images[0] for index in reversed(range(9))]
    assert torch.equal(torch.stack(alone[::-1]), all_at_once)
    assert not torch.equal(other.batch(slice(None)).images, all_at_once)
    assert not torch.equal(in_epoch(data, 4, 1).batch(slice(None)).images, all_at_once)


def test_crops_of_one_size_come_from_everywhere_in_the_middle_square_and_mirrored():
    """Each pixel of the picture tells its place, so that each part tells where it is from."""
    side = 32  # 28 * 8 / 7: the picture is not resized
    places = np.zeros((side, side + 10, 3), np.uint8)
    places[..., 0], places[..., 1] = np.mgrid[:side, : side + 10]
    picture, seen = Image.fromarray(places), set()
    for index in range(600):
        part = np.array(RandomCrop((28, 28), "position", mirror=True)(picture, index))
        flipped = part[0, 0, 1] > part[0, 1, 1]
        part = part[:, ::-1] if flipped else part
        top, left = part[0, 0, :2].tolist()
        assert np.array_equal(part, places[top : top + 28, left : left + 28])
        seen.add((top, left - 5, bool(flipped)))
    assert seen == {(top, left, flip) for top in range(5) for left in range(5) for flip in (False, True)}


@pytest.mark.parametrize("size", [(64, 48), (40, 200), (1, 9)])
def test_parts_of_any_area_keep_to_their_bounds(size):
    from daukit.transforms.pictures import _random_box

    width, height = size
    areas = []
    for seed in range(300):
        left, top, right, bottom = _random_box(size, torch.Generator().manual_seed(seed))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        areas.append((right - left) * (bottom - top) / (width * height))
        if min(size) > 20:  # sides are whole pixels
            assert 0.7 < (right - left) / (bottom - top) < 1.43
    if size == (64, 48):  # areas are uniform within [0.08, 1], but for parts that do not fit
        assert min(areas) < 0.12 and max(areas) > 0.8 and 0.4 < np.mean(areas) < 0.56


FAULTS = {
    "no train": (lambda f: shutil.rmtree(f / "train"), "train", r"train: there is no such folder; .*train/CLASS"),
    "an empty train": (
        lambda f: [shutil.rmtree(p) for p in (f / "train").iterdir()],
        "train",
        "train: holds no folder",
    ),
    "an empty class": (
        lambda f: [p.unlink() for p in (f / "train" / "brick").iterdir()],
        "train",
        r"brick: holds no picture \(\.png, \.jpg, \.jpeg\)",
    ),
    "a strange class": (
        lambda f: (f / "val" / "brick").rename(f / "val" / "bone"),
        "test",
        "bone: is no class, as there is no folder .*train/bone",
    ),
    "too few names": (lambda f: (f / "classes.txt").write_text("a\nb\n"), "test", r"classes\.txt: names 2 classes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_tree_is_one_line_that_names_it(folder, fault):
    spoil, split, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(folder, split)
    assert "\n" not in str(caught.value)


def test_faults_of_the_lists_are_one_line_each(folder):
    flat_val(folder)
    truth, synsets = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "ILSVRC2012_synsets.txt"
    lines = truth.read_text()
    for path, text, message in (
        (truth, "1\n2\n", r"ground_truth\.txt: has 2 lines, and .*val 6 pictures"),
        (truth, "4" + lines[1:], r"ground_truth\.txt: line 1 is '4', and must be the number of a line of .*1 to 3"),
        (truth, "x" + lines[1:], r"line 1 is 'x'"),
        (synsets, "cloud\napple\nbone\n", r"synsets\.txt: line 3 is no class, as there is no folder .*train/bone"),
    ):
        before = path.read_text()
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            open_dataset(folder, "test")
        path.write_text(before)
    truth.unlink()
    with pytest.raises(DataError, match=r"ground_truth\.txt: cannot be read"):
        open_dataset(folder, "test")


def test_a_damaged_picture_is_told_when_it_is_read_and_not_before(folder):
    data = open_dataset(folder, "train")
    for path, content, message in (
        (data.path(1), data.path(1).read_bytes()[:200], r"train_1\.png: cannot be read as a picture"),
        (data.path(2), b"", r"train_2\.jpg: cannot be read as a picture"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            data.batch(slice(None, 3))
        scene(0, 30, 30).save(path)
    assert data.batch(slice(1)).images.shape == (1, 3, 224, 224)


def test_a_picture_that_unpacks_to_more_than_memory_is_refused(folder):
    data = open_dataset(folder, "train")
    content = data.path(1).read_bytes()
    header = b"IHDR" + struct.pack(">2I", 16_000, 16_000) + content[24:29]
    data.path(1).write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(DataError, match=r"train_1\.png: cannot be read as a picture \(.*pixels"):
        data.batch(slice(1, 2))


def test_pictures_of_every_kind_come_out_right(tmp_path):
    """Saved in other modes, or turned by EXIF, a picture gives the same image."""
    folder = class_folders(tmp_path / "data")
    picture = Image.new("RGB", (48, 32), (200, 40, 90))
    picture.paste((20, 220, 60), (24, 0, 48, 32))
    target = folder / "val" / "apple"
    for path in target.iterdir():
        path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    picture.save(target / "a.png")
    picture.quantize(4).save(target / "b.png")
    picture.convert("RGBA").save(target / "c.png")
    picture.convert("CMYK").save(target / "d.jpg", quality=100, subsampling=0)
    picture.rotate(90, expand=True).save(target / "e.jpg", exif=exif, quality=100, subsampling=0)
    images = fitted(open_dataset(folder, "test"), SMALL).batch(slice(0, 5)).images.int()
    for image in images[1:]:
        assert (image - images[0]).abs().float().mean() < 3
    for path in target.iterdir():
        path.unlink()
    levels = np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) * 42
    Image.fromarray(levels).save(target / "a.png")
    Image.fromarray(((levels.astype(int) + 128) // 257).astype(np.uint8)).save(target / "b.png")
    images = fitted(open_dataset(folder, "test"), SMALL).batch(slice(0, 2)).images
    assert torch.equal(images[0], images[1])


def test_the_digest_is_of_names_sizes_and_classes(folder):
    first = open_dataset(folder, "train").digest()
    assert open_dataset(folder, "train").digest() == first != open_dataset(folder, "test").digest()
    path = open_dataset(folder, "train").path(0)
    path.write_bytes(path.read_bytes() + b"\0")
    second = open_dataset(folder, "train").digest()
    path.rename(path.with_name("other.JPEG"))
    listed = open_dataset(folder, "train")
    assert len({first, second, listed.digest()}) == 3
    path.with_name("other.JPEG").unlink()
    with pytest.raises(DataError, match=r"other\.JPEG: cannot be read: No such file"):
        listed.digest()


def test_the_network_says_how_large_its_images_are(folder):
    data = open_dataset(folder, "train")
    for model, config, size in (
        ("shallow", {"channels": [2, 2, 2]}, (28, 28)),
        ("shallow", {"channels": [2, 2, 2], "input_size": [16, 24]}, (16, 24)),
    ):
        network = new_network(model, config, data)
        assert daukit.models.record_of(network).preprocessing.input_size == size


def test_images_of_one_size_keep_it():
    data = ImageDataset(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3))
    assert fitted(data, SMALL) is for_training(data, SMALL, "area", True) is in_epoch(data, 0, 0) is data


def test_a_network_is_trained_resumed_and_evaluated_on_pictures(folder, tmp_path, daukit_command):
    words = (
        "--data",
        folder,
        "--channels",
        "4,4,4",
        "--units",
        "1",
        "--mirror",
        "--part",
        "position",
        "--batch-size",
        "4",
        "--schedule",
        "step",
        "--mu-lr",
        "0.01",
    )
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert daukit_command("train", "-o", whole, *words, "--epochs", "2").returncode == 0
    assert daukit_command("train", "-o", parts, *words, "--epochs", "1").returncode == 0
    done = daukit_command("train", "-o", parts, *words, "--epochs", "2", "--resume", "--overwrite")
    assert done.returncode == 0, done.stderr
    one, two = (daukit.read(path).tensors for path in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    words = ("--data", folder, "--json")
    found = json.loads(daukit_command("evaluate", whole, *words).stdout)
    assert found["images"] == 6 and len(found["class_accuracy"]) == 3
    done = daukit_command("prune", whole, "--threshold", "0.1", "--recalibrate", folder, "--dry-run", *words)
    assert (
        json.loads(done.stdout)["recalibrated"] == 9 and json.loads(done.stdout)["accuracy_before"] == found["accuracy"]
    )
    done = daukit_command("snap", whole, "--dry-run", "--images", "3", *words)
    assert json.loads(done.stdout)["accuracy_before"] == found["accuracy"]


def test_a_part_of_images_of_one_size_is_refused(tmp_path, daukit_command):
    from idx import toy_folder

    data = toy_folder(tmp_path / "toy")
    done = daukit_command("train", "--data", data, "-o", tmp_path / "x.safetensors", "--part", "area")
    assert done.returncode == 1 and "its images have one size; drop --part" in done.stderr
