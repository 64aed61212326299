"""``daukit evaluate`` of networks that segment and deblur: the figures are those of the pictures, one by one."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from example_files import write_example_files
from PIL import Image
from torch import nn
from torch.nn import functional as F
from trees import bands, deblurring_tree, gopro_tree, mask, picture, segmentation_tree

import daukit
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.factory import build_architecture
from daukit.plots.palette import IGNORED, class_colors
from daukit.preprocessing import Preprocessing
from daukit.tasks import task_name_of
from daukit.workflows import outputs

COMMAND = "evaluate"
COLOURS = Preprocessing((0.5, 0.4, 0.3), (0.25, 0.3, 0.35), "rgb", (33, 33))


@pytest.fixture
def segmenting(tmp_path):
    torch.manual_seed(0)
    sizes = {"channels": [4, 6, 6, 6, 6], "hidden": 8, "num_classes": 3}
    model = daukit.create_model("alexnet_dau", task="segmentation", **sizes).eval()
    daukit.save(model, tmp_path / "net.safetensors", preprocessing=COLOURS)
    return tmp_path / "net.safetensors"


@pytest.fixture
def deblurring(tmp_path):
    torch.manual_seed(0)
    model = daukit.create_model("srn_deblur_dau", width=2, blocks=1)
    daukit.save(model, tmp_path / "srn.safetensors", preprocessing=COLOURS)
    return tmp_path / "srn.safetensors"


@pytest.fixture
def classifying(tmp_path):
    """A network of ten classes, in a folder with 32 images."""
    write_example_files(tmp_path, "examples/fashion-mnist")
    return tmp_path / "examples/fashion-mnist/shallow_dau.safetensors"


def inputs(path):
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (COLOURS.mean, COLOURS.std))
    return (image - mean) / std, std, mean


def test_a_network_that_segments_is_measured_on_pictures_of_any_size(segmenting, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    picture(folder / "val/images/d.jpg", (40, 33), seed=9)
    mask(folder / "val/masks/d.png", bands((40, 33)))
    code, out, err = run(segmenting, "--data", folder, "--json")
    assert code == 0, err
    result = json.loads(out)
    network, said, true, losses = daukit.load(segmenting), [], [], []
    for name in ("c.png", "d.jpg"):
        with torch.no_grad():
            scores = network(inputs(folder / "val/images" / name)[0])[0]
        labels = torch.from_numpy(np.array(Image.open(folder / "val/masks" / f"{name[0]}.png"))).long()
        said.append(scores.argmax(0)[labels != 255])
        true.append(labels[labels != 255])
        losses.append(F.cross_entropy(scores[:, labels != 255].T.double(), true[-1], reduction="sum").item())
    said, true = torch.cat(said), torch.cat(true)
    iou = [((said == c) & (true == c)).sum().item() / ((said == c) | (true == c)).sum().item() for c in range(3)]
    accuracy = [(said[true == c] == c).double().mean().item() for c in range(3)]
    assert result["class_iou"] == iou and np.allclose(result["class_accuracy"], accuracy, rtol=1e-15, atol=0)
    assert math.isclose(result["mean_iou"], sum(iou) / 3, rel_tol=1e-15)
    assert math.isclose(result["mean_accuracy"], sum(accuracy) / 3, rel_tol=1e-15)
    assert result["pixel_accuracy"] == (said == true).double().mean().item()
    assert math.isclose(result["loss"], sum(losses) / len(true), rel_tol=1e-6)
    assert (result["images"], result["class_names"]) == (2, ["sky", "wall", "road"])
    assert run(segmenting, "--data", folder, "--quiet")[1] == f"{result['mean_iou']}\n"
    table = run(segmenting, "--data", folder)[1]
    assert all(word in table for word in ("IoU", "wall", f"{iou[1]:.2%}", f"{result['mean_iou']:.2%}"))


@pytest.mark.parametrize("tree", [deblurring_tree, gopro_tree])
def test_a_network_that_deblurs_is_measured_by_psnr_and_ssim(deblurring, tmp_path, run, tree):
    folder = tree(tmp_path / "data", size=(21, 26))
    code, out, err = run(deblurring, "--data", folder, "--json")
    assert code == 0, err
    result, network, decibels = json.loads(out), daukit.load(deblurring), []
    for path in sorted(folder.glob("test/**/blur*/*.png")):
        if path.parent.name == "blur_gamma":
            continue
        image, std, mean = inputs(path)
        with torch.no_grad():
            found = (network(image) * std + mean).clamp(0, 1)[0]
        sharp = np.array(Image.open(path.parent.parent / "sharp" / path.name)) / 255
        decibels.append(-10 * np.log10(((found.permute(1, 2, 0).numpy() - sharp) ** 2).mean()))
    assert math.isclose(result["psnr"], np.mean(decibels), rel_tol=1e-5) and -1 <= result["ssim"] <= 1
    assert result["images"] == len(decibels)
    assert result["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert run(deblurring, "--data", folder, "--quiet")[1] == f"{result['psnr']}\n"
    assert f"{result['psnr']:.2f}" in run(deblurring, "--data", folder)[1]


def test_training_images_count_where_they_are_asked_for(deblurring, tmp_path, run):
    folder = deblurring_tree(tmp_path / "data")
    assert json.loads(run(deblurring, "--data", folder, "--split", "train", "--json")[1])["images"] == 2


def test_what_does_not_fit_is_one_line(segmenting, deblurring, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    code, _, err = run(deblurring, "--data", folder)
    assert code == 1 and "holds pictures with masks (masks), for a network that segments" in err
    assert "this one is for deblurring" in err
    assert err.count("\n") == 1
    (folder / "classes.txt").write_text("sky\nwall\nroad\ncar\n")
    code, _, err = run(segmenting, "--data", folder)
    assert code == 1 and "network has 3 classes, the images of" in err and err.count("\n") == 1


def test_a_layout_is_one_of_the_networks_task(segmenting, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    code, _, err = run(segmenting, "--data", folder, "--layout", "cifar10")
    assert code == 2 and "layout cifar10 is for classification, and the network for segmentation" in err


TASKS = {
    "segmentation": (
        ("alexnet", {"task": "segmentation"}),
        ("resnet50_dau", {"task": "segmentation"}),
        ("deeplabv3plus", {}),
        ("deeplabv3plus_dau", {}),
    ),
    "deblurring": (("srn_deblur", {}), ("srn_deblur_dau", {})),
    "classification": (("alexnet_dau", {}), ("resnet101", {}), ("shallow", {}), ("cifar10", {})),
}


def test_the_task_of_a_network_follows_from_its_factory():
    for task, networks in TASKS.items():
        for name, options in networks:
            with torch.device("meta"):
                assert task_name_of(daukit.create_model(name, **options)) == task
    assert task_name_of(torch.nn.Linear(2, 2)) == "classification"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_table_of_segmentation_has_all_digits_and_a_row_per_class(segmenting, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    (folder / "classes.txt").write_text("=sky\nwall\nroad\n")
    code, out, err = run(segmenting, "--data", folder, "--csv", tmp_path / "t.csv", "--json")
    assert code == 0, err
    result = json.loads(out)
    head, *rows, last = rows_of(tmp_path / "t.csv")
    assert head == ["class", "name", "iou", "accuracy"] and [row[:2] for row in rows] == [
        ["0", "'=sky"], ["1", "wall"], ["2", "road"]
    ]  # fmt: skip
    assert [float(row[2]) for row in rows] == result["class_iou"]
    assert last == ["", "mean", str(result["mean_iou"]), str(result["mean_accuracy"])]
    assert result["csv"] == str(tmp_path / "t.csv")


def test_the_table_of_deblurring_is_its_figures(deblurring, tmp_path, run):
    folder = deblurring_tree(tmp_path / "data")
    result = json.loads(run(deblurring, "--data", folder, "--csv", tmp_path / "t.csv", "--json")[1])
    names, values = rows_of(tmp_path / "t.csv")
    assert names == ["psnr", "ssim", "loss", "parameters", "images"]
    assert [float(value) for value in values] == [result[name] for name in names]


def test_the_table_of_a_classifier_has_its_top_5(classifying, tmp_path, run):
    code, out, err = run(classifying, "--data", classifying.parent, "--csv", tmp_path / "t.csv", "--json")
    assert code == 0, err
    result, rows = json.loads(out), rows_of(tmp_path / "t.csv")
    assert rows[1] == ["0", "T-shirt/top", str(result["class_accuracy"][0])] and len(rows) == 13
    assert rows[-2:] == [
        ["", "all images", str(result["accuracy"])],
        ["", "all images, top 5", str(result["top_5"])],
    ]


def test_files_are_written_once_and_only_where_they_are_asked_for(deblurring, tmp_path, run):
    folder, figure = deblurring_tree(tmp_path / "data"), tmp_path / "p.png"
    code, _, err = run(deblurring, "--data", folder, "--pictures", figure, "--dry-run")
    assert code == 0 and not figure.exists() and "nothing was written" in err
    assert run(deblurring, "--data", folder, "--pictures", figure, "--quiet")[1] == f"{figure}\n"
    before = figure.read_bytes()
    code, _, err = run(deblurring, "--data", folder, "--pictures", figure)
    assert code == 1 and "--overwrite" in err and figure.read_bytes() == before
    assert run(deblurring, "--data", folder, "--picture-count", "2")[0] == 2
    assert run(deblurring, "--data", folder, "--pictures", tmp_path / "p.bmp")[0] == 1


def figure_of(monkeypatch, run, *words):
    """The figure that a command would save."""
    kept = []
    monkeypatch.setattr(outputs, "save_figure", lambda figure, path, overwrite: kept.append(figure))
    code, _, err = run(*words, "--pictures", "p.png")
    assert code == 0, err
    return kept[0]


def test_pictures_show_the_truth_and_what_each_network_says(segmenting, tmp_path, monkeypatch, run):
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    other = daukit.load(segmenting)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    daukit.save(other, tmp_path / "other.safetensors", preprocessing=COLOURS)
    figure = figure_of(monkeypatch, run, segmenting, "--data", folder, "--compare", tmp_path / "other.safetensors")
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert [text.get_text() for text in figure.texts] == ["picture", "truth", "net", "other"]
    assert np.array_equal(shown[0], np.array(Image.open(folder / "val/images/c.png")))
    colors = np.array([*class_colors(3), *([IGNORED] * 253)], dtype=np.uint8)
    assert np.array_equal(shown[1], colors[np.array(Image.open(folder / "val/masks/c.png"))])
    for network, pixels in ((daukit.load(segmenting), shown[2]), (other.eval(), shown[3])):
        with torch.no_grad():
            said = network(inputs(folder / "val/images/c.png")[0])[0].argmax(0)
        assert np.array_equal(pixels, colors[said])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "wall", "road", "not counted"]
    labels = ("--label", "ours", "--label", "random")
    figure = figure_of(
        monkeypatch, run, segmenting, "--data", folder, "--compare", tmp_path / "other.safetensors", *labels,
        "--overwrite",
    )  # fmt: skip
    assert [text.get_text() for text in figure.texts] == ["picture", "truth", "ours", "random"]


def test_pictures_of_deblurring_have_their_psnr(deblurring, tmp_path, monkeypatch, run):
    folder = deblurring_tree(tmp_path / "data")
    psnr = json.loads(run(deblurring, "--data", folder, "--json")[1])["psnr"]
    figure = figure_of(monkeypatch, run, deblurring, "--data", folder)
    blurred, found, sharp = figure.axes
    pixels = [np.array(Image.open(folder / "test" / kind / "c.png")) / 255 for kind in ("blurred", "sharp")]
    before = -10 * np.log10(((pixels[0] - pixels[1]) ** 2).mean())
    assert [text.get_text() for text in (*blurred.texts, *found.texts)] == [f"{before:.2f} dB", f"{psnr:.2f} dB"]
    assert np.array_equal(sharp.images[0].get_array() / 255, pixels[1]) and not sharp.texts


def test_pictures_of_a_classifier_are_those_that_it_gets_wrong(classifying, monkeypatch, run):
    figure = figure_of(monkeypatch, run, classifying, "--data", classifying.parent, "--picture-count", "3")
    images, network = load_folder(classifying.parent, "test"), daukit.load(classifying)
    with torch.no_grad():
        said = network(record_of(network).preprocessing.normalize(images.images)).argmax(1)
    wrong = (said != images.labels).nonzero().flatten().tolist()[:3]
    names = images.info.class_names
    for axes, i in zip(figure.axes, wrong, strict=True):
        assert np.array_equal(axes.images[0].get_array()[..., 0], images.images[i, 0])
        lines = [text.get_text() for text in axes.texts]
        assert lines == [f"is {names[images.labels[i]]}", f"said {names[said[i]]}"]


def test_networks_of_two_tasks_are_not_compared(segmenting, deblurring, tmp_path, run):
    words = ("--data", segmentation_tree(tmp_path / "data", size=(35, 41)), "--pictures", tmp_path / "p.png")
    code, _, err = run(segmenting, *words, "--compare", deblurring)
    assert code == 2 and "net.safetensors is for segmentation, and" in err and "--compare" in err


def test_tiles_change_no_figure(segmenting, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(480, 41))
    words = (segmenting, "--data", folder, "--json")
    whole, tiles = (json.loads(run(*words, *more)[1]) for more in ((), ("--tile", "450,700")))
    assert tiles["class_iou"] == whole["class_iou"] and math.isclose(tiles["loss"], whole["loss"], rel_tol=1e-6)
    code, _, err = run(*words, "--tile", "64")
    assert code == 2 and "are smaller than what an output of alexnet_dau depends on; give at least" in err


OWN = """
from torch import nn

def segment():
    return nn.Conv2d(3, 3, 3, padding=1)
"""


def test_a_network_of_ones_own_is_for_the_task_that_is_named(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    network = build_architecture({"factory": "own.py:segment", "config": {}})
    daukit.save(network, tmp_path / "own.safetensors", preprocessing=COLOURS)
    folder, words = segmentation_tree(tmp_path / "data"), ("own.safetensors", "--model", "own.py:segment")
    code, out, err = run(*words, "--data", folder, "--task", "segmentation", "--json")
    assert code == 0 and len(json.loads(out)["class_iou"]) == 3, err
    code, _, err = run(*words, "--data", folder)
    assert code == 1 and "this one is for classification" in err


def test_a_network_of_daukits_keeps_its_task(segmenting, tmp_path, run):
    code, _, err = run(segmenting, "--data", segmentation_tree(tmp_path / "data"), "--task", "deblurring")
    assert code == 2 and "net.safetensors says itself that its network is for segmentation; drop --task" in err


def test_a_classifier_takes_no_tiles(classifying, run):
    code, _, err = run(classifying, "--data", classifying.parent, "--tile", "64")
    assert code == 2 and "a classifier looks at whole images" in err


def test_large_pictures_are_drawn_as_large_as_a_page_shows_them(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    network = build_architecture({"factory": "own.py:segment", "config": {}})
    daukit.save(network, tmp_path / "own.safetensors", preprocessing=COLOURS)
    folder = segmentation_tree(tmp_path / "data", size=(40, 2800))
    words = ("own.safetensors", "--model", "own.py:segment", "--task", "segmentation", "--data", folder)
    shown, truth, said = (axes.images[0].get_array() for axes in figure_of(monkeypatch, run, *words).axes)
    assert shown.shape == truth.shape == said.shape == (20, 1400, 3)
    pixels = np.array(Image.open(folder / "val/images/c.png")).astype(float)
    assert np.abs(shown - pixels.reshape(20, 2, 1400, 2, 3).mean((1, 3))).max() <= 1
    colors = np.array([*class_colors(3), *([IGNORED] * 253)], dtype=np.uint8)
    assert np.array_equal(truth, colors[np.array(Image.open(folder / "val/masks/c.png"))[::2, ::2]])


@pytest.mark.parametrize(("names", "code"), [("sky wall road", 0), ("wall sky road", 1), ("SKY WALL ROAD", 0)])
def test_classes_in_another_order_are_refused(tmp_path, run, names, code):
    folder = segmentation_tree(tmp_path / "masks")
    model = daukit.create_model("alexnet", task="segmentation", channels=[2] * 5, hidden=2, num_classes=3).eval()
    seen = dataclasses.replace(COLOURS, class_names=("sky", "wall", "road"))
    daukit.save(model, tmp_path / "net.safetensors", preprocessing=seen)
    (folder / "classes.txt").write_text("\n".join(names.split()))
    ended, _, said = run(tmp_path / "net.safetensors", "--data", folder)
    assert ended == code, said
    assert ("in another order: label 0 is 'wall' there, and 'sky' to the network" in said) == bool(code)
