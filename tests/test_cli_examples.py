"""The examples at the end of every --help: each runs, in a folder with the files that examples name."""

import shlex
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from idx import toy_folder
from imported import Net, add_layer, full, units
from logs import write_log

import daukit
from daukit.cli.examples import examples_of
from daukit.cli.main import app
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.factory import resolve_factory
from daukit.models.structure import dau_layers

NETWORK = """
from collections import OrderedDict

import daukit
from torch import nn


def make():
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 4, 3, padding=1), relu1=nn.ReLU(), conv2=daukit.DAUConv2d(4, 6, 2, max_displacement=4.0),
        relu2=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classify=nn.Linear(6, 4),
    )
    return nn.Sequential(layers)
"""
COMMANDS = {command.name: examples_of(command.callback) for command in app.registered_commands}
EXAMPLES = [(name, example) for name, examples in COMMANDS.items() for example in examples]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What examples may name: two trained models, images, pictures, a user's network and weights, a foreign file."""
    folder = tmp_path_factory.mktemp("examples")
    toy_folder(folder / "images")
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        network = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2, num_classes=4, input_size=[16, 16])
        for layer in dau_layers(network).values():
            layer.mu.data.normal_(0, 1.5).clamp_(-4, 4)
        record_of(network).preprocessing = load_folder(folder / "images", "train").preprocessing()
        daukit.save(network, folder / f"{name}.safetensors")
        write_log(folder / f"{name}.jsonl")
    rescaled, _ = daukit.rescale_factors(daukit.read(folder / "model.safetensors"), {"conv2": 2})
    daukit.write(rescaled, folder / "rescaled.safetensors")
    (folder / "network.py").write_text(NETWORK)
    torch.save(resolve_factory(f"{folder / 'network.py'}:make")().state_dict(), folder / "weights.pth")
    (folder / "pictures").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "pictures" / f"{seed}.png")
    net = Net(name="foreign")
    w, mu1, mu2, bias = units(0, inputs=3, outputs=3)
    add_layer(net, "conv2", "DAUConvolution", (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9])
    (folder / "foreign.caffemodel").write_bytes(net.SerializeToString())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("command", "example"), EXAMPLES)
def test_an_example_runs(files, tmp_path, monkeypatch, daukit_command, command, example):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    program, first, *words = shlex.split(example)
    assert (program, first) == ("daukit", command)
    done = daukit_command(command, *words)
    assert done.returncode == (command == "diff"), done.stderr  # the two models differ
    assert not done.stderr.startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_the_examples(daukit_command, command):
    shown = daukit_command(command, "--help").stdout
    _, _, end = shown.partition("Examples:\n")
    assert len(COMMANDS[command]) in (2, 3)
    assert " ".join(end.replace("\\\n", " ").split()) == " ".join(COMMANDS[command])
