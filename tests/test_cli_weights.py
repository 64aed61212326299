"""Options of every command that reads a state dict: --weights, lists in --model-arg, and a folder's own options."""

import json

import pytest
import torch

import daukit
from daukit.cli import options

COMMAND = "info"
NAMED = ("--model", "shallow_dau", "--model-arg", "channels=2,3", "--model-arg", "units=2")
SIZED = ("--model-arg", "num_classes=3", "--model-arg", "input_size=8,8")


@pytest.fixture
def averaged(tmp_path):
    """A state dict with averaged weights, of which all are zero."""
    torch.manual_seed(0)
    state = daukit.create_model("shallow_dau", channels=[2, 3], units=2, num_classes=3, input_size=[8, 8]).state_dict()
    path = tmp_path / "m.pt"
    torch.save({"model": state, "model_ema": {name: torch.zeros_like(tensor) for name, tensor in state.items()}}, path)
    return path


def test_lists_are_written_with_commas():
    items = ["channels=4,6,-6", "x=1e3, 2.5", "name=a,b", "text=1,", "one=4", "list=[1]", "nan=NaN", "bits=1,0x"]
    assert options.parse_values(items, "--model-arg") == {
        "channels": [4, 6, -6], "x": [1000.0, 2.5], "name": "a,b", "text": "1,", "one": 4, "list": [1], "nan": "NaN",
        "bits": "1,0x",
    }  # fmt: skip


def test_text_for_a_list_is_an_error_that_names_the_option(run, averaged):
    code, _, err = run(averaged, "--model", "shallow_dau", "--model-arg", "channels=2;3")
    assert code == 1 and "option channels of shallow_dau must be a list of at most 64, each an integer" in err


def test_averaged_weights_are_said_and_chosen(run, averaged):
    _, _, err = run(averaged, *NAMED, *SIZED)
    assert "--weights ema takes the averaged ones" in err.replace("\n", " ")
    code, out, err = run(averaged, *NAMED, *SIZED, "--weights", "ema", "--json")
    assert code == 0 and "averaged" not in err
    assert json.loads(out)["history"][0]["arguments"]["weights"] == "model_ema"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("prune", ("--threshold", "0.1", "--dry-run")),
        ("prune", ("--thresholds", "0.1", "--dry-run")),
        ("rescale", ("--factor", "conv1=2", "--dry-run")),
        ("bake", ("--dry-run", "--size", "8,8")),
        ("plot-offsets", ("--dry-run",)),
        ("convert", ("--dry-run",)),
        ("erf", ("--size", "8,8", "--images", "1")),
        ("evaluate", ("--data", ".")),
    ],
)
def test_every_command_hands_the_choice_on(daukit_command, averaged, command, arguments):
    done = daukit_command(command, averaged, *arguments, *NAMED, *SIZED, "--weights", "none")
    assert (
        done.returncode == 1 and "has no weights 'none'; it has state dicts under 'model', 'model_ema'" in done.stderr
    )


def test_weights_without_a_file_are_wrong_usage(daukit_command):
    for arguments in (("info",), ("erf", "--size", "8,8")):
        done = daukit_command(*arguments, "--model", "shallow_dau", "--weights", "ema")
        assert done.returncode == 2 and "no weights to choose" in done.stderr


def test_a_folders_options_go_to_its_network(run, tmp_path, averaged):
    folder = tmp_path / "hf"
    folder.mkdir()
    torch.save(torch.load(averaged)["model"], folder / "pytorch_model.bin")
    config = {"channels": [2, 3], "units": 2, "num_classes": 3, "input_size": [8, 8], "architectures": ["X"]}
    (folder / "config.json").write_text(json.dumps(config))
    code, out, _ = run(folder, "--model", "shallow_dau", "--quiet")
    assert code == 0 and out.split() == [str(2 * (1 * 2 + 2 * 3))]


@pytest.mark.parametrize(
    ("kind", "command", "arguments"),
    [
        ("folder", "rescale", ("--factor", "conv1=2", "-o", "out.safetensors")),
        ("sharded", "prune", ("--merge-within", "1", "-o", "out.safetensors")),
        ("index", "bake", ("--size", "8,8", "--dry-run")),
    ],
)
def test_the_size_before_is_that_of_the_files_with_tensors(
    daukit_command, tmp_path, monkeypatch, averaged, kind, command, arguments
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "many"
    folder.mkdir()
    state = torch.load(averaged)["model"]
    if kind == "folder":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        places = {name: f"model-{i % 2}.bin" for i, name in enumerate(state)}
        for part in sorted(set(places.values())):
            torch.save({name: tensor for name, tensor in state.items() if places[name] == part}, folder / part)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    source = folder / "pytorch_model.bin.index.json" if kind == "index" else folder
    done = daukit_command(command, source, *arguments, *NAMED, *SIZED, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes_before"] == sum(part.stat().st_size for part in folder.glob("*.bin"))
