"""A rescale by factors is taken back bit for bit, or refused."""

import json

import pytest
import torch

import daukit
from daukit.errors import CheckpointError
from daukit.models import create_model
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.rescale import remove_pools, rescale_factors, undo_rescale

COMMAND = "undo"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = create_model("shallow_dau", channels=[2, 2, 3], units=2)
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.mu.normal_(0, 1.3)
    path = tmp_path / "model.safetensors"
    daukit.save(network, path)
    return path


def rescaled(daukit_command, model, *arguments, name="rescaled.safetensors"):
    path = model.with_name(name)
    done = daukit_command("rescale", model, *arguments, "-o", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("--factor", "conv2=2"),
        ("--factor", "conv1=0.5", "--factor", "conv3=8"),
        ("--factor", "conv2=3", "--mode", "exact"),
        ("--factor", "conv2=1"),
    ],
    ids=" ".join,
)
def test_the_very_file_comes_back(arguments, run, daukit_command, model, tmp_path):
    path = rescaled(daukit_command, model, *arguments)
    code, out, err = run(path, "-o", tmp_path / "back.safetensors", "--json")
    assert code == 0, err
    assert json.loads(out)["same_file"] is True
    assert (tmp_path / "back.safetensors").read_bytes() == model.read_bytes()


def test_only_the_last_of_several_is_taken_back(run, daukit_command, model, tmp_path):
    first = rescaled(daukit_command, model, "--factor", "conv2=2", name="first.safetensors")
    second = rescaled(daukit_command, first, "--factor", "conv2=4", "--factor", "conv1=2")
    assert run(second, "-o", tmp_path / "back.safetensors")[0] == 0
    assert (tmp_path / "back.safetensors").read_bytes() == first.read_bytes()
    assert run(tmp_path / "back.safetensors", "-o", tmp_path / "again.safetensors")[0] == 0
    assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


def test_a_file_of_another_writer_comes_back_in_all_that_counts(model):
    before = daukit.read(model)
    after, _ = rescale_factors(before, {"conv2": 2})
    after.header.history[-1]["source"] = "0" * 64
    back, undoing = undo_rescale(after)
    assert undoing.same_file is False
    assert back.header.history == before.header.history
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert back.header.layers == before.header.layers


def test_a_model_gives_a_model(model):
    network = daukit.load(model)
    scaled, _ = daukit.rescale_factors(network, {"conv2": 4})
    back, undoing = undo_rescale(scaled)
    assert undoing.factors == {"conv2": 4} and torch.equal(back.conv2.mu, network.conv2.mu)
    assert back.conv2.max_displacement == network.conv2.max_displacement


def general():
    return torch.nn.Sequential(DAUConv2d(1, 2, units=2, form="gaussian", sigma=0.5, learn_sigma="unit"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: rescale_factors(c, {"conv2": 3})[0], "only powers of two keep every bit; rescale by its inverse"),
        (lambda c: rescale_factors(c, {"conv1": 2, "conv2": 1.5})[0], "'conv2' by 1.5"),
        (lambda c: remove_pools(c, ["pool3"])[0], "removed pools or strides"),
        (lambda c: daukit.prune(rescale_factors(c, {"conv2": 2})[0], 0.1)[0], "the last operation is 'prune'"),
        (lambda c: c, "its history is empty"),
    ],
)
def test_what_is_not_exact_is_refused(make, words, model):
    with pytest.raises(CheckpointError, match=words):
        undo_rescale(make(daukit.read(model)))


@pytest.mark.parametrize("factors", [{"conv2": 0}, {"conv2": "x"}, {"conv2": None}, {"conv2": -2}, {"conv2": True}, 3])
def test_a_history_that_somebody_else_wrote_is_refused(factors, model):
    after, _ = rescale_factors(daukit.read(model), {"conv2": 2})
    after.header.history[-1]["arguments"]["factors"] = factors
    with pytest.raises(CheckpointError):
        undo_rescale(after)
    further, _ = rescale_factors(after, {"conv1": 2})  # what was before is nothing to take back
    assert undo_rescale(further)[1].factors == {"conv1": 2}


def test_a_dilation_that_the_history_does_not_fit_is_refused(model):
    after, _ = rescale_factors(daukit.read(model), {"conv2": 3}, "exact")
    after.header.history[-1]["arguments"]["factors"] = {"conv2": 2}
    with pytest.raises(CheckpointError, match="dilation is an integer"):
        undo_rescale(after)


def test_rounded_displacements_are_not_taken_back(daukit_command, run, model, tmp_path):
    snapped = tmp_path / "snapped.safetensors"
    assert daukit_command("snap", model, "-o", snapped).returncode == 0
    half = rescaled(daukit_command, snapped, "--factor", "conv2=0.5", name="half.safetensors")
    code, _, err = run(half, "-o", tmp_path / "back.safetensors")
    assert code == 1 and "rounded to whole pixels" in err and not (tmp_path / "back.safetensors").exists()
    double = rescaled(daukit_command, snapped, "--factor", "conv2=2", name="double.safetensors")
    assert run(double, "-o", tmp_path / "back.safetensors")[0] == 0
    assert (tmp_path / "back.safetensors").read_bytes() == snapped.read_bytes()


def test_windows_of_the_general_form_are_not_taken_back(tmp_path):
    path = tmp_path / "general.safetensors"
    daukit.save(general(), path, architecture={"factory": general, "config": {}})
    after, _ = rescale_factors(daukit.read(path), {"0": 2})
    with pytest.raises(CheckpointError, match="its window was made anew"):
        undo_rescale(after)


def test_a_dry_run_writes_nothing_and_an_output_must_be_named(run, daukit_command, model):
    path = rescaled(daukit_command, model, "--factor", "conv2=2")
    code, out, err = run(path, "--dry-run")
    assert code == 0 and "byte for byte" in out and "nothing was written" in err
    code, _, err = run(path)
    assert code == 2 and "name the file to write" in err
