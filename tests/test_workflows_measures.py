"""What commands measure, from Python: the same results, for files and for checkpoints in memory."""

import json
from dataclasses import replace

import pytest
import torch
from idx import toy_folder

import daukit
from daukit.checkpoint import from_model, read
from daukit.datasets import load_folder
from daukit.errors import CheckpointError, OutputError
from daukit.models import record_of
from daukit.models.costs import UNKNOWN
from daukit.results import as_json
from daukit.workflows.bake import bake_checkpoint
from daukit.workflows.costs import cost_of_checkpoint
from daukit.workflows.evaluate import evaluate_checkpoint
from daukit.workflows.evaluator import Evaluator
from daukit.workflows.info import describe_file, describe_network
from daukit.workflows.models import list_networks
from daukit.workflows.timing import time_checkpoints

CONFIG = {"channels": [3, 4, 5], "units": 2, "num_classes": 4, "input_size": [16, 16]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def network(folder):
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", **CONFIG)
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    return network


@pytest.fixture
def path(network, tmp_path):
    daukit.save(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_files_description_is_what_info_prints(path, daukit_command):
    assert as_json(describe_file(read(path))) == json.loads(daukit_command("info", path, "--json").stdout)


def test_a_model_in_memory_is_described_as_its_file_but_for_what_only_a_file_has(network, path):
    of_file, of_model = as_json(describe_file(read(path))), as_json(describe_file(from_model(network)))
    assert (of_model.pop("file"), of_model.pop("bytes")) == (None, None)
    assert of_model == {key: value for key, value in of_file.items() if key in of_model}


def test_a_network_is_described_without_a_file(network):
    described = describe_network("shallow_dau", CONFIG)
    assert described.units == sum(layer.units or 0 for layer in described.layers) == 2 * (3 + 12 + 20)
    assert described.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert described.input == (1, 1, 16, 16) and described.paper == ()
    assert {entry.name for entry in list_networks().models} == set(daukit.models.MODELS)


def test_a_networks_cost_is_unknown_where_no_code_of_users_may_run(network):
    checkpoint = from_model(network)
    assert cost_of_checkpoint(checkpoint, {}).multiply_adds > 0
    header = replace(checkpoint.header, architecture={"factory": "network.py:make", "config": {}})
    assert cost_of_checkpoint(replace(checkpoint, header=header), {}) == UNKNOWN


def test_accuracies_of_several_networks_share_one_bar(path, folder):
    seen = []
    measure = Evaluator(folder, networks=2, on_progress=lambda share, words: seen.append((share, words)))
    first, second = measure(read(path)), measure(read(path))
    assert first == second and first.accuracy == evaluate_checkpoint(read(path), folder).accuracy
    assert seen == [(0.5, "accuracy of network 1 of 2"), (1.0, "accuracy of network 2 of 2")]


def test_times_are_of_the_size_asked_for(network):
    times = time_checkpoints(from_model(network), from_model(network), size=(16, 16))
    assert times.input == (8, 1, 16, 16) and 0 < times.before.median and 0 < times.after.lower <= times.after.upper


def test_a_size_that_nothing_tells_is_asked_for_in_pythons_words():
    checkpoint = from_model(daukit.create_model("srn_deblur_dau"))
    with pytest.raises(CheckpointError, match=r"input size; give it with size=\(H, W\)"):
        time_checkpoints(checkpoint, checkpoint)


def test_a_program_is_baked_from_a_model_in_memory(network, tmp_path):
    output = tmp_path / "model.pt2"
    result = bake_checkpoint(from_model(network), output)
    assert result.output == output and result.bytes_after == output.stat().st_size and result.bytes_before is None
    assert [layer.name for layer in result.layers] == ["conv1", "conv2", "conv3"] and result.difference <= 1e-12
    for name, message in (("model.pt2", "overwrite=True"), ("model.bin", "must end in")):
        with pytest.raises(OutputError, match=message):
            bake_checkpoint(from_model(network), tmp_path / name)
