"""``daukit erf`` of networks that segment and deblur, and on folders of pictures that have masks or sharp ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_networks import COLOURS, KINDS, segmenting
from torch import nn
from trees import cityscapes_tree, deblurring_tree, gopro_tree, picture, segmentation_tree, voc_tree

import daukit
from daukit.datasets import LAYOUTS
from daukit.errors import DataError
from daukit.workflows.erf import folder_inputs
from daukit.workflows.erf_images import layout_to_measure
from daukit.workflows.erf_networks import ProbedNetwork

COMMAND = "erf"
SIZE = (12, 14)
ANY = ProbedNetwork(label="net", path=None, module=nn.Conv2d(3, 2, 3), preprocessing=COLOURS)
TREES = {
    "masks": (segmentation_tree, "val/images/*.png"),
    "voc": (voc_tree, "VOCdevkit/VOC2012/JPEGImages/[cde].jpg"),
    "cityscapes": (cityscapes_tree, "leftImg8bit/val/lindau/*.png"),
    "blurred": (deblurring_tree, "test/blurred/*.png"),
    "gopro": (gopro_tree, "test/*/blur/*.png"),
    "gopro-gamma": (gopro_tree, "test/*/blur_gamma/*.png"),
}


def pixels(paths):
    """Pictures of one size as a network takes them, in the order of their names."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (COLOURS.mean, COLOURS.std))
    images = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in sorted(paths)]
    return (torch.stack(images) - mean) / std


def inputs_of(folder, layout=None):
    """The inputs of a network, in an order that does not depend on the draw."""
    (found,) = folder_inputs([ANY], folder, 100, layout=layout, size=SIZE).tensors
    return found[found[:, 0, 0, 0].argsort()]


@pytest.mark.parametrize("layout", TREES)
def test_only_pictures_count_and_neither_masks_nor_sharp_ones(tmp_path, layout):
    tree, pattern = TREES[layout]
    folder = tree(tmp_path, size=SIZE)
    expected = pixels(folder.glob(pattern))
    expected = expected[expected[:, 0, 0, 0].argsort()]
    assert torch.allclose(inputs_of(folder, layout), expected, atol=1e-6)
    if layout != "gopro-gamma":
        assert layout_to_measure(folder) == layout and torch.equal(inputs_of(folder), inputs_of(folder, layout))


def test_every_layout_of_pictures_with_targets_is_tried_here():
    assert {*TREES} == {*LAYOUTS} - {"idx", "cifar10", "cifar100", "imagenet"}


def test_all_pictures_count_where_there_are_no_masks_or_where_they_are_asked_for(tmp_path):
    for name in ("train/images/a.png", "val/images/b.png", "val/other/c.png"):
        picture(tmp_path / name, SIZE)
    assert layout_to_measure(tmp_path) is None and len(inputs_of(tmp_path)) == 3
    folder = segmentation_tree(tmp_path / "data", size=SIZE)
    assert len(inputs_of(folder)) == 1 and layout_to_measure(folder, "imagenet") is None


def test_pictures_to_learn_from_count_where_there_are_no_others(tmp_path):
    folder = deblurring_tree(tmp_path, size=SIZE)
    (folder / "test").rename(folder / "extra")
    assert len(inputs_of(folder)) == 2


def test_a_folder_of_several_layouts_is_asked_about(tmp_path):
    gopro_tree(segmentation_tree(tmp_path, size=SIZE), size=SIZE)
    with pytest.raises(DataError, match=r"masks.*gopro.*or name one by layout="):
        layout_to_measure(tmp_path)
    assert layout_to_measure(tmp_path, "gopro") == "gopro"


def test_a_layout_without_a_folder_is_a_usage_error(tmp_path, run):
    code, _, err = run(segmenting(tmp_path), "--layout", "voc")
    assert code == 2 and "no folder is read without --data" in " ".join(err.split())


@pytest.mark.parametrize("figure", KINDS)
def test_a_network_of_another_task_is_measured_on_its_own_pictures(tmp_path, run, figure):
    make, tree, size = KINDS[figure]
    source, folder = make(tmp_path), tree(tmp_path / "data", size=size)
    layer = {"mean_iou": "conv2", "psnr": "encoder2.0.conv"}[figure]
    drawing, maps = tmp_path / "fields.png", tmp_path / "maps.npz"
    words = (source, "--data", folder, "--size", f"{size[0]},{size[1]}", "--layer", layer)
    code, out, err = run(*words, "-o", drawing, "--npz", maps, "--json")
    assert code == 0, err
    result = json.loads(out)
    images = pixels(folder.glob("*/images/c.png" if figure == "mean_iou" else "test/blurred/c.png"))
    (field,) = daukit.effective_receptive_field(daukit.load(source), [layer], images)
    (found,) = result["layers"]
    assert (result["images"], result["size"], found["name"]) == (1, list(size), layer)
    assert np.allclose(np.load(maps)[layer], field.map.numpy(), atol=1e-6)
    assert drawing.read_bytes().startswith(b"\x89PNG")
    assert found["contours"][1]["area"] == field.contours[1].area
