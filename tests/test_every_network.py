"""Every network of daukit's goes through every command that runs networks, and is given what it takes."""

import json

import pytest
import torch
from idx import toy_folder
from pictures import CLASSES, class_folders
from trees import deblurring_tree, segmentation_tree

import daukit
from daukit.models import MODELS
from daukit.preprocessing import Preprocessing

NARROW = {"width": 4, "depths": [1, 1, 1, 1], "num_classes": 3}
# What makes a network small, the size of its input, and its images.
FAMILIES = {
    "alexnet": ({"channels": [4] * 5, "hidden": 8, "num_classes": len(CLASSES), "input_size": [67, 67]}, 67, "colour"),
    "cifar10": ({"num_classes": len(CLASSES)}, 24, "colour"),
    "deeplabv3plus": ({**NARROW, "features": 8}, 32, "masks"),
    "resnet50": ({**NARROW, "task": "segmentation"}, 32, "masks"),
    "resnet101": ({**NARROW, "num_classes": len(CLASSES)}, 64, "colour"),
    "shallow": ({"channels": [4, 4, 4], "num_classes": 4, "input_size": [16, 16]}, 16, "grey"),
    "srn_deblur": ({"width": 2, "blocks": 1, "scales": 2}, 16, "blurred"),
}
IMAGES = {
    "colour": class_folders,
    "grey": toy_folder,
    "masks": lambda folder: segmentation_tree(folder, (32, 32)),
    "blurred": lambda folder: deblurring_tree(folder, (16, 16)),
}
COMMANDS = {
    "info": (),
    "erf": ("--size", "SIZE", "--images", 2, "--measure", "squared", "--probes", 2, "--npz", "maps.npz"),
    "evaluate": ("--data", "images"),
    "report": ("--data", "images", "--images", 1, "-o", "page.html"),
    "export": ("--size", "SIZE", "-o", "network.onnx"),
    "bake": ("--size", "SIZE", "-o", "program.pt2"),
    "prune": ("--macs", 0.98, "--size", "SIZE", "--time", "-o", "pruned.safetensors"),
    "prune by images": ("--remove", 0.2, "--score", "taylor", "--data", "images", "-o", "scored.safetensors"),
    "snap": ("--data", "images", "--match", "outputs", "--images", 2, "-o", "snapped.safetensors"),
    "snap in time": ("--size", "SIZE", "--time", "-o", "timed.safetensors"),
    "convert substituted": ("--substitute", "--units", 2, "-o", "dau.safetensors"),
    "convert sparse": ("--sparse", "--sparsity", 0.9, "--size", "SIZE", "--time", "-o", "sparse.safetensors"),
}
FOR_UNITS, FOR_OTHERS = ("prune", "snap"), ("convert substituted",)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each network, with its file and its images."""

    def make(name):
        options, size, kind = FAMILIES[name.removesuffix("_dau")]
        folder = tmp_path_factory.mktemp(name)
        channels = 1 if kind == "grey" else 3
        torch.manual_seed(0)
        network = daukit.create_model(name, **options)
        for parameter in network.parameters():  # scores begin at zero, and nothing influences those
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.normal_(parameter)
        order = "gray" if channels == 1 else "rgb"
        expected = Preprocessing((0.5,) * channels, (0.25,) * channels, order, (size, size))
        daukit.save(network, folder / "net.safetensors", preprocessing=expected)
        IMAGES[kind](folder / "images")
        return folder, size, channels

    return make


def test_every_network_has_a_small_one():
    assert {name.removesuffix("_dau") for name in MODELS} == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_command_that_runs_networks_takes_every_network(name, folders, daukit_command, monkeypatch):
    folder, size, channels = folders(name)
    monkeypatch.chdir(folder)
    displaced = name.endswith("_dau")
    for what, options in COMMANDS.items():
        if displaced and what in FOR_OTHERS:
            continue
        command = what.split()[0]
        words = (size if option == "SIZE" else option for option in options)
        done = daukit_command(command, "net.safetensors", *words, "--json")
        if command in FOR_UNITS and not displaced:
            assert done.returncode == 1 and "has no DAU layers" in done.stderr, (what, done.stderr)
            continue
        assert done.returncode == 0, (what, done.stderr)
        time = json.loads(done.stdout).get("time")
        assert time is None or time["input"][1:] == [channels, size, size], what


@pytest.mark.slow
def test_a_network_without_norms_is_timed_without_diverging(folders, daukit_command, monkeypatch):
    """Its displacements were not finite after some steps at the learning rate of a training."""
    folder, _, _ = folders("srn_deblur_dau")
    monkeypatch.chdir(folder)
    network = ("--model", "srn_deblur_dau", "--model-arg", "width=2", "--model-arg", "blocks=1")
    done = daukit_command("bench", "--data", "images", *network, "--crop-size", 12, "--batch-size", 1, "--rounds", 3)
    assert done.returncode == 0, done.stderr
