"""Receptive fields as Python measures them by ``daukit.workflows.erf``: the same as the command's."""

import json

import pytest
import torch
from idx import write_idx
from torch import nn

import daukit
from daukit import DataError
from daukit.errors import CheckpointError
from daukit.results import as_json
from daukit.workflows.erf import Inputs, folder_inputs, measure_fields, noise_inputs
from daukit.workflows.erf_networks import ProbedNetwork, initial_network, stored_network

COMMAND = "erf"
CHANNELS = {"channels": [3, 2, 4]}


def plain(*layers):
    return ProbedNetwork(label="net", path=None, module=nn.Sequential(*layers).eval())


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", torch.randint(256, (3, 12, 12), dtype=torch.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", torch.zeros(3, dtype=torch.uint8))
    return tmp_path


def test_python_gets_what_the_command_prints(run, folder, tmp_path):
    daukit.save(daukit.create_model("shallow_dau", **CHANNELS), tmp_path / "net.safetensors")
    given = ("--data", folder, "--mean", 0.5, "--std", 0.25, "--layer", "conv2", "--images", 2)
    others = ("--compare", "shallow", "--compare-model-arg", "channels=3,2,4")
    _, out, _ = run(tmp_path / "net.safetensors", *given, *others, "--npz", tmp_path / "a.npz", "--json")
    stored = stored_network(daukit.read(tmp_path / "net.safetensors")).probing(["conv2"])
    networks = [stored, initial_network("shallow", CHANNELS).probing(like=stored.layers)]
    done = []
    result = measure_fields(
        networks,
        folder_inputs(networks, folder, 2, mean=(0.5,), std=(0.25,)),
        npz=tmp_path / "b.npz",
        on_progress=lambda share, words: done.append(share),
    )
    assert as_json(result) == {**json.loads(out), "npz": str(tmp_path / "b.npz")}
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert done == sorted(done) and done[-1] == 1


def test_networks_are_called_as_they_are_labelled(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("daukit.workflows.erf.save_figure", lambda figure, path, overwrite: drawn.append(figure))
    networks = [plain(nn.Conv2d(1, 2, 3)).probing(), plain(nn.Conv2d(1, 2, 5)).probing()]
    inputs, figure = Inputs([torch.rand(2, 1, 9, 9)] * 2), tmp_path / "a.png"
    result = measure_fields(networks, inputs, figure=figure, labels=["narrow", "wide"])
    assert [one.label for one in result.networks] == ["narrow", "wide"]
    measure_fields(networks, inputs, figure=figure)
    first, second = ([axes.get_title().splitlines()[0] for axes in each.axes[:2]] for each in drawn)
    assert first == ["narrow", "wide"] and second == ["net (1)", "net (2)"]
    with pytest.raises(ValueError, match="1 label for 2 files"):
        measure_fields(networks, inputs, labels=["narrow"])


def test_noise_has_one_size_that_holds_the_fields_of_all_networks():
    small, large = (plain(nn.Conv2d(1, 2, kernel, padding=kernel // 2)).probing() for kernel in (3, 71))
    tensors = noise_inputs([small, large], 2).tensors
    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 1, 128, 128)] * 2
    assert torch.equal(*tensors)


def test_layers_are_those_wanted_else_those_of_another_else_the_default():
    network = plain(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    assert network.probing().layers == ("0", "2") == network.probing(like=["0", "3"]).layers
    assert network.probing(like=["1"]).layers == ("1",)
    assert network.probing(["2"], like=["1"]).layers == ("2",)
    with pytest.raises(CheckpointError, match=r"net: there is no layer 'x' \(layers: 0, 1, 2\)"):
        network.probing(["x"])
    with pytest.raises(CheckpointError, match=r"neither DAU layers nor 2-D convolutions; name modules with probing"):
        plain(nn.ReLU()).probing()


def test_wrong_arguments_are_told_in_pythons_words(folder):
    one, two = plain(nn.Conv2d(1, 2, 3)).probing(), plain(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)).probing()
    with pytest.raises(DataError, match=r"give mean and std \(and size\)"):
        folder_inputs([one], folder, 1)
    with pytest.raises(ValueError, match="IDX files have their own size"):
        folder_inputs([one], folder, 1, size=(8, 8), mean=(0.5,), std=(1.0,))
    with pytest.raises(ValueError, match="net has 1 layers and net 2; name those to compare"):
        measure_fields([one, two], Inputs([torch.rand(1, 1, 9, 9)] * 2))
