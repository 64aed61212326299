"""``daukit snap`` of networks that segment and deblur: refitted on pictures of any size, measured by the task."""

import json

import pytest
import torch
from pixel_networks import KINDS, deblurring, normalized
from trees import deblurring_tree, picture

import daukit
from daukit.workflows.snap import snap_checkpoint


def data(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LAYERS = {"mean_iou": "conv3", "psnr": "encoder2.0.conv"}


@pytest.mark.parametrize("figure", KINDS)
def test_the_figures_before_and_after_are_what_evaluate_says(tmp_path, daukit_command, figure):
    network, tree, size = KINDS[figure]
    source, folder, output = network(tmp_path), tree(tmp_path / "data", size=size), tmp_path / "snapped.safetensors"
    words = ("snap", source, "--data", folder, "--layer", LAYERS[figure])
    found = data(daukit_command(*words, "-o", output, "--json"))
    for when, file in (("before", source), ("after", output)):
        evaluated = data(daukit_command("evaluate", file, "--data", folder, "--json"))
        assert found[f"{figure}_{when}"] == evaluated[figure]
    assert (found["images"], found["split"]) == (2, "train") and f"{figure}_rounded" in found
    assert "accuracy_before" not in found and all(layer["matched"] == "outputs" for layer in found["layers"])
    shown = daukit_command(*words, "--dry-run").stdout
    assert {"mean_iou": "mean IoU ", "psnr": "PSNR "}[figure] in shown and "(only rounded: " in shown


def test_pictures_of_the_same_small_size_count_as_they_are(tmp_path):
    source, folder = deblurring(tmp_path), deblurring_tree(tmp_path / "data", size=(20, 26))
    how = {"layers": [LAYERS["psnr"]], "seed": 3}
    found = snap_checkpoint(daukit.read(source), data=folder, **how)
    order = torch.randperm(2, generator=torch.Generator().manual_seed(3)).tolist()
    inputs = torch.cat([normalized(folder / "train/blurred" / f"{'ab'[i]}.png") for i in order])
    _, report = daukit.snap(daukit.read(source), inputs=inputs, **how)
    assert found.layers == report.layers


def test_of_pictures_of_several_sizes_parts_of_one_size_count(tmp_path):
    source, folder = deblurring(tmp_path), deblurring_tree(tmp_path / "data", size=(20, 26))
    for kind in ("blurred", "sharp"):
        picture(folder / "train" / kind / "b.png", (24, 18))
    found = [
        snap_checkpoint(daukit.read(source), data=folder, layers=[LAYERS["psnr"]], seed=seed) for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2] and found[0].images == 2


def test_a_layout_is_one_of_the_networks_task_and_needs_a_folder(tmp_path, daukit_command):
    source = deblurring(tmp_path)
    for words, said in (
        (("--data", tmp_path, "--layout", "masks"), "layout masks is for segmentation, and the network for deblurring"),
        (("--layout", "gopro"), "no folder is read without --data"),
    ):
        done = daukit_command("snap", source, "--dry-run", *words)
        assert done.returncode == 2 and said in " ".join(done.stderr.replace("│", " ").split())
