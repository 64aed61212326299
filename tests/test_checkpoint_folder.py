"""Folders of the Hugging Face hub's layout: read wherever a file is, and written whole."""

import json

import pytest
import safetensors.torch
import torch

import daukit
from daukit.checkpoint import from_model, load, write_folder
from daukit.errors import CheckpointError, OutputError

X = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[4, 5, 6], units=2).eval()
    model.conv2.keep_units(model.conv2.weight.abs() > 0.1)
    return model


def test_a_folder_is_written_whole_and_read_as_the_model(tmp_path, model):
    folder = tmp_path / "model"
    size = write_folder(from_model(model), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert size == (folder / "model.safetensors").stat().st_size
    assert torch.equal(load(folder)(X), model(X))
    assert torch.equal(load(folder / "model.safetensors")(X), model(X))


def test_config_json_counts_where_the_tensors_lost_their_header(tmp_path, model):
    folder = tmp_path / "model"
    write_folder(from_model(model), folder)
    safetensors.torch.save_file(safetensors.torch.load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert torch.equal(load(folder)(X), model(X))


def test_somebody_elses_folder_gives_the_options_of_the_network_that_is_named(tmp_path):
    torch.manual_seed(0)
    model = daukit.create_model("shallow", channels=[4, 5, 6], num_classes=3).eval()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"channels": [4, 5, 6], "num_classes": 3, "torch_dtype": "x"}))
    assert torch.equal(load(tmp_path, model="shallow")(X), model(X))
    with pytest.raises(CheckpointError, match="name it with model="):
        load(tmp_path)


def test_nothing_is_overwritten_unasked(tmp_path, model):
    folder = tmp_path / "model"
    write_folder(from_model(model), folder)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_folder(from_model(daukit.create_model("shallow")), folder)
    assert (folder / "config.json").read_bytes() == before
    write_folder(from_model(daukit.create_model("shallow")), folder, overwrite=True)
    assert json.loads((folder / "config.json").read_text())["architecture"]["name"] == "shallow"


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_folder_takes_the_place_of_a_file(tmp_path, model, daukit_command, overwrite):
    source, file = tmp_path / "m.safetensors", tmp_path / "model"
    daukit.save(model, source)
    file.write_text("mine")
    with pytest.raises(OutputError, match="is a file, and a folder is to be written; choose another name"):
        write_folder(from_model(model), file, overwrite=overwrite)
    done = daukit_command("convert", source, "--folder", "-o", file, *["--overwrite"] * overwrite)
    assert done.returncode == 1 and "is a file, and a folder is to be written; choose another name" in done.stderr
    assert file.read_text() == "mine"


def empty(folder):
    pass


def parts(folder):
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


def no_json(folder):
    safetensors.torch.save_file({"a": X}, folder / "model.safetensors")
    (folder / "config.json").write_text("{")


def a_list(folder):
    safetensors.torch.save_file({"a": X}, folder / "model.safetensors")
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"a folder without model\.safetensors"),
        (parts, "several files"),
        (no_json, "config.json: its text is not JSON"),
        (a_list, "not a JSON object"),
    ],
)
def test_a_folder_that_is_none_is_refused(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, model="shallow")
