"""What is written can be read again, and nothing that others said in a file is lost."""

import hashlib
import json
import math
import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import daukit
from daukit.channels import drop_channels
from daukit.checkpoint import from_model, read_any
from daukit.errors import CheckpointError, OutputError
from daukit.pruning import Rule, merge, prune, prune_file
from daukit.rescale import remove_pools, rescale_factors

CONFIG = {"channels": [2, 3, 3], "units": 2, "num_classes": 2, "input_size": [16, 16]}


def checkpoint_of(**config):
    torch.manual_seed(1)
    return from_model(daukit.create_model("shallow_dau", **{**CONFIG, **config}))


def counted(units, kept):
    """A layer of one pair with many units, and which of them stay; the last one is the smallest."""
    checkpoint = checkpoint_of(channels=[1, 1, 1], units=units)
    weight = torch.ones(1, 1, units)
    weight[..., kept:] = 0.1
    checkpoint.tensors["conv1.weight"] = weight
    return checkpoint


def in_file(folder, checkpoint, rule):
    source = folder / "source.safetensors"
    daukit.write(checkpoint, source)
    return lambda: prune_file(source, rule, source, overwrite=True), source


@pytest.mark.parametrize(
    ("kept", "dtype"),
    [(255, "U8"), (256, "U16"), (65_535, "U16"), (65_536, None), (70_000, None)],
)
@pytest.mark.parametrize("way", ["file", "memory", "layer"])
def test_counts_fit_their_integers_or_are_refused_before_anything_is_written(tmp_path, way, kept, dtype):
    checkpoint = counted(70_001, kept)
    rule = Rule(layer_thresholds={"conv1": 0.5})
    act, path = in_file(tmp_path, checkpoint, rule)
    before = path.read_bytes()
    if way == "memory":
        act = lambda: daukit.write(prune(checkpoint, layer_thresholds={"conv1": 0.5})[0], path, overwrite=True)  # noqa: E731
    if way == "layer":
        network = daukit.load(path)
        network.conv1.keep_units(network.conv1.weight.abs() > 0.5)
        act = lambda: daukit.save(network, path, overwrite=True)  # noqa: E731
    if dtype is None:
        with pytest.raises(CheckpointError, match=f"'conv1': a pair would keep {kept:,} units.*at most 65,535"):
            act()
        assert path.read_bytes() == before
        return
    act()
    with safe_open(path, framework="np") as file:
        assert file.get_slice("conv1.unit_counts").get_dtype() == dtype
    assert daukit.read(path).layer("conv1").counts.tolist() == [kept]


def cut(checkpoint):
    checkpoint.tensors["conv2.mu"] = checkpoint.tensors["conv2.mu"][..., :1]


def without(checkpoint):
    del checkpoint.tensors["conv2.weight"]


def nan(checkpoint):
    checkpoint.tensors["conv2.weight"][0, 0, 0] = math.nan


def absurd(checkpoint):
    checkpoint.header.layers[1]["groups"] = 0


@pytest.mark.parametrize("spoil", [cut, without, nan, absurd])
def test_what_daukit_could_not_read_again_is_not_written(tmp_path, spoil):
    path = tmp_path / "model.safetensors"
    daukit.write(checkpoint_of(), path)
    before, spoiled = path.read_bytes(), checkpoint_of()
    spoil(spoiled)
    with pytest.raises(
        CheckpointError, match=rf"{path}: was not written, since daukit could not read it: .*(conv2|groups)"
    ):
        daukit.write(spoiled, path, overwrite=True)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_type_that_no_file_can_hold_is_not_written(tmp_path):
    checkpoint = checkpoint_of()
    checkpoint.tensors["odd"] = torch.zeros(2, dtype=torch.complex128)
    with pytest.raises(OutputError, match=r"odd is torch\.complex128"):
        daukit.write(checkpoint, tmp_path / "model.safetensors")


SAID = {"format": "pt", "licence": "meine ü", "another": '{"x": 1}'}


@pytest.fixture
def said(tmp_path):
    """A daukit file to whose metadata somebody has added."""
    path, checkpoint = tmp_path / "said.safetensors", checkpoint_of()
    safetensors.torch.save_file(checkpoint.tensors, path, SAID | {"daukit": checkpoint.header.to_json()})
    return path


def metadata_of(path):
    with safe_open(path, framework="np") as file:
        return {key: text for key, text in file.metadata().items() if key != "daukit"}


OPERATIONS = {
    "prune": lambda c: prune(c, 0.5)[0],
    "merge": lambda c: merge(c, 2.0)[0],
    "drop channels": lambda c: drop_channels(replace(c, tensors=c.tensors | {"bn2.weight": torch.zeros(3)}))[0],
    "rescale": lambda c: rescale_factors(c, {"conv1": 2.0})[0],
    "remove pools": lambda c: remove_pools(c, ["pool3"])[0],
    "derive": lambda c: c.derive("anything", {}),
    "load and save": lambda c: from_model(daukit.checkpoint.build_model(c)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_others_said_in_a_file_goes_through_every_operation(tmp_path, said, operation):
    output, again = tmp_path / "output.safetensors", tmp_path / "again.safetensors"
    after = OPERATIONS[operation](daukit.read(said))
    assert after.metadata == SAID
    daukit.write(after, output)
    assert metadata_of(output) == SAID
    daukit.write(daukit.read(output), again)
    assert again.read_bytes() == output.read_bytes()


def test_what_others_said_in_a_file_goes_through_pruning_a_file_and_import(tmp_path, said):
    plain, output = tmp_path / "plain.safetensors", tmp_path / "output.safetensors"
    prune_file(said, Rule(0.5), output)
    assert metadata_of(output) == SAID
    safetensors.torch.save_file(checkpoint_of().tensors, plain, SAID)
    assert read_any(plain, model="shallow_dau", config=CONFIG).metadata == SAID
    daukit.save(daukit.load(plain, model="shallow_dau", config=CONFIG), output, overwrite=True)
    assert metadata_of(output) == SAID


def test_what_others_said_in_a_file_stays_with_a_folder(tmp_path, said):
    folder = tmp_path / "folder"
    daukit.checkpoint.write_folder(daukit.read(said), folder)
    assert metadata_of(folder / "model.safetensors") == SAID
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})  # stored anew by others
    assert read_any(folder).metadata == {"format": "pt"}


@pytest.mark.parametrize("factor", [1e10, 1e30, 1e100, 1e300, 1.7e308])
@pytest.mark.parametrize("form", ["bilinear", "gaussian"])
@pytest.mark.parametrize("init", ["grid", "uniform", "normal"])
def test_a_factor_that_no_file_can_hold_is_refused_with_layer_and_value(factor, form, init):
    network = daukit.create_model("shallow_dau", **CONFIG, init=init)
    network.conv2 = daukit.DAUConv2d(2, 3, 2, form=form, init=init)
    checkpoint = from_model(network)
    with pytest.raises(
        ValueError, match=rf"layer 'conv2', factor {factor:g}: .* becomes .*choose a smaller factor".replace("+", r"\+")
    ):
        rescale_factors(checkpoint, {"conv2": factor})


@pytest.mark.parametrize("factor", [1e-300, 1e-3, 1.5, 1e5])
def test_a_factor_that_is_not_refused_makes_a_file_that_can_be_read(tmp_path, factor):
    path = tmp_path / "model.safetensors"
    after, _ = rescale_factors(checkpoint_of(), {"conv2": factor})
    daukit.write(after, path)
    assert json.loads(daukit.read(path).header.to_json()) == json.loads(after.header.to_json())
    daukit.load(path)


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.safetensors", "日本 [x] :smile:.safetensors".encode(), b"n" * 243 + b".safetensors"]
)
def test_a_name_may_be_any_that_the_folder_can_have(tmp_path, name):
    source, output = (tmp_path / os.fsdecode(first + name[1:]) for first in (name[:1], b"x"))
    daukit.write(checkpoint_of(), source)
    prune_file(source, Rule(0.5), output)
    assert daukit.read(output).digest == hashlib.sha256(output.read_bytes()).hexdigest()
    daukit.save(daukit.load(output), output, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
