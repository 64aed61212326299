"""Layouts of data sets: found by their files, read as they were written, and refused in one line where they fail."""

import json
import re
from typing import get_args

import pytest
import torch
from cifar import cifar10_folder, cifar100_folder, colours
from idx import toy_folder
from pictures import class_folders
from trees import cityscapes_tree, deblurring_tree, gopro_tree, segmentation_tree, voc_tree

from daukit.cli import options
from daukit.datasets import (
    LAYOUTS,
    ImageDataset,
    Layout,
    has_images,
    has_labels,
    layouts_in,
    load_deblurring,
    load_segmentation,
    open_dataset,
    open_images,
)
from daukit.errors import DataError
from daukit.tasks import task_name


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {
        "idx": toy_folder(root / "idx"),
        "cifar10": cifar10_folder(root / "cifar10"),
        "cifar100": cifar100_folder(root / "cifar100"),
    }


@pytest.mark.parametrize("layout", ["idx", "cifar10", "cifar100"])
def test_a_layout_is_found_by_its_files(folders, layout):
    folder = folders[layout]
    assert layouts_in(folder) == [layout]
    for split in ("train", "test"):
        found, named = open_dataset(folder, split), open_dataset(str(folder), split, layout)
        assert found.digest() == named.digest() and has_images(folder, split) and has_labels(folder, split)


def test_cifar10_is_read_as_it_was_written(folders):
    for split, count, seed in (("train", 40, 0), ("test", 20, 1)):
        images, labels = colours(count, seed)
        data = open_dataset(folders["cifar10"], split)
        assert torch.equal(data.images, images) and torch.equal(data.labels, labels.long())
        assert data.info.num_classes == 10 and data.class_names[9] == "truck"
    assert data.preprocessing().channel_order == "rgb" and data.preprocessing().input_size == (32, 32)


def test_of_cifar100_the_fine_label_counts(folders):
    images, labels = colours(30, 0)
    data = open_dataset(folders["cifar100"], "train")
    assert torch.equal(data.images, images) and torch.equal(data.labels, 10 * labels.long())
    assert data.info.num_classes == 100 and data.class_names[99] == "fine99"


def test_names_of_classes_may_come_from_another_file(folders, tmp_path):
    (tmp_path / "ten.txt").write_text("\n".join("abcdefghij"))
    assert open_dataset(folders["cifar10"], "test", classes=tmp_path / "ten.txt").class_names == tuple("abcdefghij")
    (tmp_path / "three.txt").write_text("a\nb\nc")
    with pytest.raises(DataError, match=r"three\.txt: names 3 classes, and the data set has 10"):
        open_dataset(folders["cifar10"], "test", classes=tmp_path / "three.txt")


def test_images_without_labels_are_enough_where_only_images_count(tmp_path):
    folder = toy_folder(tmp_path / "toy")
    expected = open_dataset(folder, "test").images
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert has_images(folder, "test") and not has_labels(folder, "test")
    assert torch.equal(open_images(folder, "test").batch(slice(None)).images, expected)
    with pytest.raises(DataError, match="there is no t10k-labels"):
        open_dataset(folder, "test")


def test_an_unknown_and_an_ambiguous_folder_are_one_clear_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no data set that daukit knows; looked for IDX files .*CIFAR-10 .*CIFAR-100"):
        open_dataset(tmp_path, "test")
    with pytest.raises(DataError, match="there is no such folder"):
        open_dataset(tmp_path / "nowhere", "test", "cifar10")
    with pytest.raises(ValueError, match="layout must be one of idx, cifar10, cifar100"):
        open_dataset(tmp_path, "test", "cifar")
    both = cifar10_folder(tmp_path / "both")
    toy_folder(both)
    with pytest.raises(DataError, match=r"holds IDX files \(idx\) and CIFAR-10 \(cifar10\); put each into a folder"):
        open_dataset(both, "test")
    assert len(open_dataset(both, "test", "cifar10")) == 20 and len(open_dataset(both, "test", "idx")) == 48


TREES = {
    "imagenet": ("classification", class_folders),
    "masks": ("segmentation", segmentation_tree),
    "voc": ("segmentation", voc_tree),
    "cityscapes": ("segmentation", cityscapes_tree),
    "blurred": ("deblurring", deblurring_tree),
    "gopro": ("deblurring", gopro_tree),
}


@pytest.mark.parametrize("layout", TREES)
def test_a_layout_is_found_among_those_of_a_task(tmp_path, layout):
    task, tree = TREES[layout]
    folder = tree(tmp_path / "data")
    assert layouts_in(folder) == [layout]
    for split in ("train", "test"):
        found = open_dataset(folder, split, task=task)
        assert found.digest() == open_images(str(folder), split, layout, task=task).digest()
        assert has_images(folder, split, task=task) and has_labels(folder, split, task=task)
    for other in {"classification", "segmentation", "deblurring"} - {task}:
        with pytest.raises(DataError, match=rf" \({layout}\), .*, and this one is for {other}; looked for ") as error:
            open_dataset(folder, "train", task=other)
        said = re.search(r"for a network that \w+, as (\w+)( with task=\"segmentation\")?, and", str(error.value))
        chosen = {"task": "segmentation"} if said[2] else {}
        assert task_name({"name": said[1], "config": chosen}) == task  # what is named takes such a folder
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=f"layout {layout} is for {task}, and the network for {other}, with lay"):
            open_dataset(folder, "train", layout, task=other)


@pytest.mark.parametrize("layout", TREES)
def test_what_to_choose_by_is_a_part_of_its_own_where_there_is_one(tmp_path, layout):
    task, tree = TREES[layout]
    folder = tree(tmp_path / "data")
    if (folder / "test").is_dir():
        assert not has_images(folder, "val", task=task) and not has_labels(folder, "val", task=task)
        with pytest.raises(DataError, match=r"there is no folder val in it; it has train and test$"):
            open_dataset(folder, "val", task=task)
        (folder / "train").rename(folder / "val")
        assert open_dataset(folder, "val", task=task).digest() != open_dataset(folder, "test", task=task).digest()
    else:
        assert open_dataset(folder, "val", task=task).digest() == open_dataset(folder, "test", task=task).digest()
    assert has_images(folder, "val", task=task) and has_labels(folder, "val", task=task)


def test_layouts_of_two_parts_say_so(folders):
    for folder in folders.values():
        assert not has_images(folder, "val") and not has_labels(folder, "val")
        for read in (open_dataset, open_images):
            with pytest.raises(DataError, match=r": has no part val; take train or test, which this layout has$"):
                read(folder, "val")


def test_classes_that_are_called_as_another_layout_has_its_folders_can_be_told(tmp_path):
    folder = deblurring_tree(tmp_path / "data")
    with pytest.raises(DataError, match=r'if the folders in .*train are classes, say so by layout="imagenet"$'):
        open_dataset(folder, "train")
    assert open_dataset(folder, "train", "imagenet").info.class_names == ("blurred", "sharp")


def test_a_layout_reads_what_its_function_reads(tmp_path):
    masks, gopro = segmentation_tree(tmp_path / "masks"), gopro_tree(tmp_path / "gopro")
    found = open_dataset(masks, "test", task="segmentation", channel_order="bgr")
    assert found == load_segmentation(masks, "test", channel_order="bgr")
    for layout, gamma in (("gopro", False), ("gopro-gamma", True)):
        found = open_dataset(gopro, "train", layout, task="deblurring", channel_order="gray")
        assert found == load_deblurring(gopro, "train", gamma=gamma, channel_order="gray")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    named = open_dataset(masks, "train", classes=tmp_path / "names.txt", task="segmentation")
    assert named.info.class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="pictures to deblur have no classes"):
        open_dataset(gopro, "train", classes=tmp_path / "names.txt", task="deblurring")
    with pytest.raises(ValueError, match="task must be classification, segmentation or deblurring, got 'depth'"):
        open_dataset(gopro, "train", task="depth")


def test_commands_take_all_layouts():
    choice, _ = get_args(get_args(options.Layout)[0])
    assert get_args(choice) == get_args(Layout) == LAYOUTS


def cut(path, number):
    path.write_bytes(path.read_bytes()[:number])


def set_byte(path, place, value):
    data = bytearray(path.read_bytes())
    data[place] = value
    path.write_bytes(data)


FAULTS = {
    "a missing file": (lambda f: (f / "data_batch_3.bin").unlink(), r"data_batch_3\.bin: there is no such file"),
    "a truncated one": (lambda f: cut(f / "data_batch_2.bin", 3073 * 8 - 1), r"data_batch_2\.bin: has 24583 bytes"),
    "an empty one": (lambda f: cut(f / "data_batch_1.bin", 0), r"data_batch_1\.bin: has 0 bytes"),
    "one cut between images": (lambda f: cut(f / "data_batch_5.bin", 3073 * 7), "holds 7 images, and .* holds 8"),
    "no class": (lambda f: set_byte(f / "data_batch_4.bin", 2 * 3073, 10), r"batch_4\.bin: image 2 has label 10"),
    "no names": (lambda f: (f / "batches.meta.txt").unlink(), r"batches\.meta\.txt: cannot be read"),
    "too few names": (lambda f: (f / "batches.meta.txt").write_text("cat\ndog\n"), r"names 2 classes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_cifar10_is_one_line_that_names_the_file(tmp_path, fault):
    folder = cifar10_folder(tmp_path / "data")
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(folder, "train")
    assert "\n" not in str(caught.value)


def test_faults_of_cifar100_are_told_too(tmp_path):
    folder = cifar100_folder(tmp_path / "data")
    set_byte(folder / "test.bin", 3074 + 1, 100)
    with pytest.raises(DataError, match=r"test\.bin: image 1 has label 100, and the largest one is 99"):
        open_dataset(folder, "test")
    cut(folder / "train.bin", 3073)  # a record of CIFAR-10
    with pytest.raises(DataError, match=r"train\.bin: has 3073 bytes, and images of 3074 bytes"):
        open_dataset(folder, "train")


def test_preprocessing_is_that_of_the_pixels_as_numbers():
    images = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 9
    found = ImageDataset(images, torch.zeros(7, dtype=torch.int64)).preprocessing()
    values = images.double().div(255).transpose(0, 1).flatten(1)
    assert found.mean == pytest.approx(values.mean(1).tolist(), abs=1e-6)
    assert found.std[:2] == pytest.approx(values[:2].std(1, correction=0).tolist(), abs=1e-6)
    assert found.std[2] == 1.0  # of one value no deviation can be divided by


def test_a_network_is_trained_and_evaluated_on_cifar(folders, tmp_path, daukit_command):
    folder, output = folders["cifar10"], tmp_path / "net.safetensors"
    words = ("--channels", "4,4,4", "--units", "1", "--epochs", "1", "--batch-size", "8")
    done = daukit_command("train", "--data", folder, "-o", output, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(daukit_command("evaluate", output, "--data", folder, "--layout", "cifar10", "--json").stdout)
    assert found["images"] == 20 and len(found["class_accuracy"]) == 10
    for command in (("prune", output, "--thresholds", "0,0.5"), ("snap", output, "--dry-run")):
        done = daukit_command(*command, "--data", folder, "--json")
        assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr
    done = daukit_command("prune", output, "--threshold", "0.1", "--recalibrate", folder, "--dry-run", "--json")
    assert json.loads(done.stdout)["recalibrated"] == 40
    done = daukit_command("erf", output, "--data", folder, "--images", "1", "--layer", "conv1", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["size"] == [32, 32]
    done = daukit_command("evaluate", output, "--data", tmp_path)
    assert done.returncode == 1 and "looked for IDX files" in done.stderr and done.stderr.count("\n") == 1
