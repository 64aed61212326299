"""Pruning and sweeping as Python calls them: results and files, and errors in words of Python."""

import json

import pytest
import torch
from idx import toy_folder

import daukit
from daukit.checkpoint import from_model
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.pruning import Rule
from daukit.results import as_json
from daukit.workflows.prune import prune_checkpoint, prune_layer_by_layer
from daukit.workflows.sensitivity import measure_sensitivity
from daukit.workflows.sweep import sweep_thresholds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 8, 8)


@pytest.fixture
def network(folder):
    torch.manual_seed(0)
    made = daukit.create_model("shallow_dau", channels=[2, 3, 4], units=2, num_classes=4, input_size=[16, 16])
    record_of(made).preprocessing = load_folder(folder, "train").preprocessing()
    return made


@pytest.fixture
def path(tmp_path, network):
    daukit.save(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_both_ways_give_the_result_that_the_command_prints(path, tmp_path, daukit_command):
    rule = Rule(0.4, layer_thresholds={"conv2": 0.6})
    whole = prune_checkpoint(daukit.read(path), rule, output=tmp_path / "whole.safetensors")
    layers = prune_layer_by_layer(path, rule, output=tmp_path / "layers.safetensors")
    words = ("--threshold", "0.4", "--threshold", "conv2=0.6", "-o", tmp_path / "command.safetensors")
    printed = json.loads(daukit_command("prune", path, *words, "--json").stdout)
    assert as_json(whole) == printed | {"output": str(whole.output)}
    assert as_json(layers) == printed | {"output": str(layers.output)}
    assert daukit.read(whole.output).tensors.keys() == daukit.read(layers.output).tensors.keys()


def test_without_an_output_nothing_is_written(path):
    result = prune_checkpoint(daukit.read(path), Rule(units=10), merge_within=0.5, drop_channels=True)
    assert result.output is None and result.units == 10 and result.merge is not None and result.channels is not None
    assert sorted(path.parent.iterdir()) == [path]


def test_a_model_in_memory_has_the_size_that_its_file_would_have(network, path):
    result = prune_checkpoint(from_model(network), Rule(0.3))
    assert result.bytes_before == path.stat().st_size == prune_layer_by_layer(path, Rule(0.3)).bytes_before


def test_an_output_that_exists_is_refused_before_any_work(path, tmp_path):
    (tmp_path / "there.safetensors").touch()
    for call in (prune_layer_by_layer, lambda source, rule, **how: prune_checkpoint(daukit.read(source), rule, **how)):
        with pytest.raises(daukit.OutputError, match=r"exists already; .*overwrite=True"):
            call(path, Rule(units=10**6), output=tmp_path / "there.safetensors")
        with pytest.raises(ValueError, match="the network has only"):
            call(path, Rule(units=10**6))


def test_a_sweep_writes_its_table_and_reports_accuracies_where_there_are_images(path, tmp_path, folder):
    plain = sweep_thresholds(daukit.read(path), [0, 0.5], csv=tmp_path / "a.csv")
    assert [(point.accuracy, point.random) for point in plain.sweep] == [(None, None)] * 2
    told = []
    measured = sweep_thresholds(
        daukit.read(path), [0, 0.5], data=folder, random_seed=0, on_progress=lambda share, words: told.append(share)
    )
    assert measured.layers == plain.layers and measured.sweep[0].accuracy == measured.sweep[0].random
    assert told == sorted(told) and told[-1] == 1
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 2 * 4


def test_removal_at_random_is_refused_where_nothing_is_measured(path):
    with pytest.raises(ValueError, match="random_seed needs data"):
        sweep_thresholds(daukit.read(path), [0.5], random_seed=0)


def test_the_sensitivity_of_a_threshold_that_removes_nothing_is_zero(path, folder):
    result = measure_sensitivity(daukit.read(path), [0], data=folder)
    assert [entry.layer for entry in result.sensitivity] == ["conv1", "conv2", "conv3"]
    assert {(entry.accuracy_change, entry.loss_change) for entry in result.sensitivity} == {(0, 0)}


def test_the_sensitivity_of_a_network_without_dau_layers_is_refused(tmp_path, folder):
    plain = from_model(daukit.create_model("shallow", channels=[2, 2, 2], num_classes=4, input_size=[16, 16]))
    with pytest.raises(daukit.CheckpointError, match="no DAU layers"):
        measure_sensitivity(plain, [0.1], data=folder)
