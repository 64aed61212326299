"""``daukit evaluate`` of networks that segment and deblur: the figures are those of the pictures, one by one."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from trees import bands, deblurring_tree, gopro_tree, mask, picture, segmentation_tree

import daukit
from daukit.preprocessing import Preprocessing
from daukit.tasks import task_name_of

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
    assert code == 1 and "holds pictures with masks (masks), and the network is for deblurring" in err
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
