"""Multiply-adds that info and prune print: those of torch's counter on the network itself, or nothing."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import daukit


def counted(network, shape):
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(shape))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    daukit.save(daukit.create_model("alexnet_dau", **SMALL), path)
    return path


SMALL = {"channels": (4, 4, 4, 4, 4), "hidden": 4, "num_classes": 3, "input_size": (67, 67)}
SHAPE = (1, 3, 67, 67)


def test_info_counts_what_torch_counts_of_the_network_of_a_file(source, daukit_command):
    data = json.loads(daukit_command("info", source, "--json").stdout)
    assert data["input"] == list(SHAPE) and data["multiply_adds"] == counted(daukit.load(source), SHAPE)
    assert (
        f"{data['multiply_adds']:,} multiply-adds for one image of 3 x 67 x 67" in daukit_command("info", source).stdout
    )


def test_info_counts_a_network_without_a_file(daukit_command):
    data = json.loads(daukit_command("info", "--model", "alexnet_dau", "--model-arg", "hidden=8", "--json").stdout)
    network = daukit.create_model("alexnet_dau", hidden=8)
    assert data["multiply_adds"] == counted(network, data["input"])


@pytest.mark.parametrize("more", [[], ["--drop-channels"]])
def test_prune_counts_both_networks(source, tmp_path, daukit_command, more):
    pruned = tmp_path / "pruned.safetensors"
    done = daukit_command("prune", source, "-o", pruned, "--threshold", "0.3", "--json", *more)
    data = json.loads(done.stdout)
    assert data["multiply_adds_before"] == counted(daukit.load(source), SHAPE)
    assert data["multiply_adds_after"] == counted(daukit.load(pruned), SHAPE) < data["multiply_adds_before"]
    told = daukit_command("prune", source, "--dry-run", "--threshold", "0.3", *more).stdout
    assert "one image of 3 x 67 x 67: " in told and " multiply-adds (-" in told


def test_nothing_is_counted_where_nobody_tells_the_inputs_size(tmp_path, daukit_command):
    path = tmp_path / "net.safetensors"
    daukit.save(daukit.create_model("srn_deblur_dau"), path)
    data = json.loads(daukit_command("info", path, "--json").stdout)
    assert data["input"] is None and data["multiply_adds"] is None
    assert "multiply-adds" not in daukit_command("info", path).stdout
