"""Checkpoints as people save them: wrapped, prefixed, averaged, with other things beside them, in several files."""

import argparse
import datetime
import json
import pathlib
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import daukit
from daukit.checkpoint import plain, read_any
from daukit.errors import CheckpointError

CONFIG = {"channels": [2, 3], "units": 2, "num_classes": 3, "input_size": [8, 8]}
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return daukit.create_model("shallow_dau", **CONFIG).eval()


def load(path, **options):
    return daukit.load(path, model="shallow_dau", config=CONFIG, **options)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


PREFIXES = ("", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model.", "_fabric_module.")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict", "network", "net", "my_own"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_and_prefixes_are_taken_off(tmp_path, network, wrapper, prefix):
    state = prefixed(prefix, network.state_dict())
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "m.pt")
    assert torch.equal(load(tmp_path / "m.pt")(X), network(X))
    safetensors.torch.save_file(prefixed(prefix, network.state_dict()), tmp_path / "m.safetensors")
    assert torch.equal(load(tmp_path / "m.safetensors")(X), network(X))


def test_a_part_that_was_compiled_alone_is_read(tmp_path, network):
    names = {name.replace("conv1.", "conv1._orig_mod."): tensor for name, tensor in network.state_dict().items()}
    torch.save(names, tmp_path / "m.pt")
    assert torch.equal(load(tmp_path / "m.pt")(X), network(X))


def build_wrapped():
    """A network whose own names begin as wrappers do."""
    return nn.ModuleDict({"model": nn.Linear(2, 3)})


def test_a_networks_own_names_are_left_alone(tmp_path):
    own = build_wrapped()
    torch.save(prefixed("module.", own.state_dict()), tmp_path / "m.pt")
    loaded = daukit.load(tmp_path / "m.pt", model=f"{__name__}:build_wrapped")
    assert torch.equal(loaded["model"].weight, own["model"].weight)


def test_what_lies_beside_the_tensors_is_not_made(tmp_path, network):
    beside = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), when=datetime.datetime(2024, 5, 6)),
        "paths": [pathlib.Path("a"), pathlib.PurePosixPath("b"), pathlib.PureWindowsPath("c")],
        "best": np.float64(0.9), "curve": np.arange(3.0), "seen": np.int64(3), "flag": np.bool_(True),
        "when": [datetime.date(2024, 5, 6), datetime.timedelta(1), datetime.timezone.utc],
        "optimizer": OrderedDict(state={}, param_groups=[{"lr": 0.1, "betas": (0.9, 0.999)}]),
    }  # fmt: skip
    for zipped in (True, False):
        torch.save({"model": network.state_dict(), **beside}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        assert torch.equal(load(tmp_path / "m.pt")(X), network(X))


AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "swa_state_dict")


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_weights_are_a_choice_and_said(tmp_path, network, name):
    path, zeros = tmp_path / "m.pt", {key: torch.zeros_like(tensor) for key, tensor in network.state_dict().items()}
    torch.save({"state_dict": network.state_dict(), name: prefixed("module.", zeros)}, path)
    assert torch.equal(load(path)(X), network(X))
    plain = read_any(path, model="shallow_dau", config=CONFIG)
    assert 'weights="ema"' in plain.notes[0] and plain.header.history[0]["arguments"]["weights"] == "state_dict"
    for choice in ("ema", name):
        checkpoint = read_any(path, model="shallow_dau", config=CONFIG, weights=choice)
        assert not checkpoint.tensors["conv1.weight"].any() and checkpoint.notes == ()
        assert checkpoint.header.history[0]["arguments"]["weights"] == name
    with pytest.raises(CheckpointError, match="has no weights 'best'; it has state dicts under 'state_dict', "):
        load(path, weights="best")


def test_a_file_of_averaged_weights_alone_says_so(tmp_path, network):
    path = tmp_path / "m.pt"
    torch.save({"n_averaged": torch.tensor(5), **prefixed("module.", network.state_dict())}, path)
    checkpoint = read_any(path, model="shallow_dau", config=CONFIG)
    assert "averaged weights" in checkpoint.notes[0] and "n_averaged" not in checkpoint.tensors
    assert torch.equal(load(path, weights="ema")(X), network(X))
    torch.save({"model_ema": {"state_dict": network.state_dict(), "updates": 3}}, path)
    assert "'model_ema'" in read_any(path, model="shallow_dau", config=CONFIG).notes[0]


def test_weights_cannot_be_chosen_where_there_is_no_choice(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "m.pt")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "plain.safetensors")
    for path in (tmp_path / "m.pt", tmp_path / "plain.safetensors"):
        with pytest.raises(CheckpointError, match="one set of weights and no choice; drop weights='ema'"):
            load(path, weights="ema")
    daukit.save(network, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="one set of weights and no choice"):
        daukit.load(tmp_path / "m.safetensors", weights="ema")


@pytest.mark.parametrize(
    ("data", "saw"),
    [
        ({"generator": {"w": torch.ones(1)}, "critic": {"w": torch.ones(1)}}, "'generator', 'critic'; weights=NAME"),
        ({"epoch": 3, "w": torch.ones(1)}, r"no state dict among \['epoch', 'w'\]"),
        ({}, r"no state dict among \[\]"),
        (torch.ones(1), "a Tensor"),
        ([{"w": torch.ones(1)}], "a list"),
    ],
)
def test_what_is_no_state_dict_says_what_it_is(tmp_path, data, saw):
    torch.save(data, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=saw):
        load(tmp_path / "m.pt")


def sharded(folder, state, suffix):
    """A state dict in two files with their index."""
    stem, save = ("model", safetensors.torch.save_file) if suffix == ".safetensors" else ("pytorch_model", torch.save)
    files = [f"{stem}-0000{i}-of-00002{suffix}" for i in (1, 2)]
    names = list(state)
    place = {name: files[i % 2] for i, name in enumerate(names)}
    for i, file in enumerate(files):
        save({name: state[name] for name in names[i::2]}, folder / file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    return index, place


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_several_files_with_an_index_are_one_state_dict(tmp_path, network, suffix):
    index, _ = sharded(tmp_path, network.state_dict(), suffix)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["X"]}))
    for path in (tmp_path, index):
        checkpoint = read_any(path, model="shallow_dau")
        parts = [part for part in tmp_path.iterdir() if "-of-" in part.name]
        assert checkpoint.file_size == sum(part.stat().st_size for part in parts) and len(checkpoint.digest) == 64
        assert torch.equal(daukit.load(path, model="shallow_dau")(X), network(X))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../secret.safetensors", "a file's name, in the same folder"),
        ("/etc/x.safetensors", "a file's name, in the same folder"),
        ("a\\b.safetensors", "a file's name, in the same folder"),
        ("C:x.safetensors", "a file's name, in the same folder"),
        ("\0.safetensors", "a file's name, in the same folder"),
        ("passwd", "a file's name, in the same folder"),
        (3, "a file's name, in the same folder"),
        ("missing.safetensors", "no such file"),
        ("model-00001-of-00002.safetensors", "has no tensor"),
    ],
)
def test_an_index_opens_only_what_lies_beside_it(tmp_path, network, place, message):
    index, places = sharded(tmp_path, network.state_dict(), ".safetensors")
    places[next(name for name, file in places.items() if "00002-of" in file)] = place
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_an_index_that_is_none_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="index"):
        load(tmp_path)


def test_a_folder_of_one_pickle_is_read(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert torch.equal(daukit.load(tmp_path, model="shallow_dau")(X), network(X))


@pytest.mark.parametrize(
    ("files", "named", "what"),
    [
        (["checkpoint"], "", "folder of TensorFlow"),
        (["m.ckpt-1.index", "m.ckpt-1.data-00000-of-00001"], "", "folder of TensorFlow"),
        (["m.ckpt-1.index"], "m.ckpt-1", "checkpoint of TensorFlow"),
        (["m.ckpt-1.index"], "m.ckpt-1.index", "checkpoint of TensorFlow"),
        (["m.caffemodel"], "m.caffemodel", "checkpoint of Caffe"),
    ],
)
def test_what_an_importer_reads_is_named(tmp_path, files, named, what):
    for name in files:
        (tmp_path / name).write_text("")
    with pytest.raises(CheckpointError, match=rf"is a {what}'s; daukit\.importers\.import_checkpoint\(\) reads it"):
        daukit.load(tmp_path / named)


def test_options_of_a_folder_that_its_network_cannot_take_are_named(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "channels": "2,3"}))
    with pytest.raises(CheckpointError, match=r"option channels of shallow_dau must be a list of .*, got '2,3'"):
        daukit.load(tmp_path, model="shallow_dau")


def test_threads_that_read_pickles_do_not_take_what_may_be_made_from_each_other(tmp_path, monkeypatch):
    """torch keeps that list for the whole process, and who is done first clears it."""
    inside, most, load = [], [], torch.load

    def slow(*arguments, **options):
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.02)
        try:
            return load(*arguments, **options)
        finally:
            inside.pop()

    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(a=1)}, tmp_path / "m.pth")
    monkeypatch.setattr(torch, "load", slow)
    with ThreadPoolExecutor(3) as pool:
        plains = list(pool.map(plain.read_plain, [tmp_path / "m.pth"] * 6))
    assert [list(one.tensors) for one in plains] == [["w"]] * 6 and max(most) == 1
