"""Outputs of all commands: never an input, never two in one file, never a name of another kind."""

import pytest
import torch

import daukit

WRITERS = {
    "prune": (("--threshold", "0.1", "-o"), ".safetensors"),
    "prune --drop-channels": (("--threshold", "0.1", "--drop-channels", "-o"), ".safetensors"),
    "prune --csv": (("--thresholds", "0,0.1", "--csv"), ".csv"),
    "prune --figure": (("--thresholds", "0,0.1", "--figure"), ".png"),
    "evaluate --csv": (("--data", "nowhere", "--csv"), ".csv"),
    "evaluate --pictures": (("--data", "nowhere", "--pictures"), ".png"),
    "snap": (("-o",), ".safetensors"),
    "rescale": (("--factor", "conv1=2", "-o"), ".safetensors"),
    "bake": (("-o",), ".pt2"),
    "convert": (("--substitute", "--where", "conv1", "-o"), ".safetensors"),
    "plot-offsets": (("-o",), ".png"),
    "plot-offsets --csv": (("--csv",), ".csv"),
    "erf": (("-o",), ".png"),
    "erf --npz": (("--npz",), ".npz"),
    "train": (("--data", "nowhere", "-o"), ".safetensors"),
}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    config = {"channels": [2, 3, 3], "units": 2, "num_classes": 2, "input_size": [8, 8]}
    daukit.save(daukit.create_model("shallow_dau", **config), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def called(writer, source, output):
    """The words of a command that reads ``source`` and writes ``output``."""
    command, options = writer.split()[0], WRITERS[writer][0]
    return (command, *(("--from", source) if command == "train" else (source,)), *options, output)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("way", ["link", "hard", "dots"])
def test_no_command_writes_over_what_it_reads(daukit_command, tmp_path, monkeypatch, model, writer, way):
    monkeypatch.chdir(tmp_path)
    before, output = model.read_bytes(), tmp_path / f"other{WRITERS[writer][1]}"
    if way == "link":
        output.symlink_to(model.name)
    elif way == "hard":
        output.hardlink_to(model)
    else:
        model = model.rename(output)
        output = f"../{tmp_path.name}/{output.name}"
    done = daukit_command(*called(writer, model, output), "--overwrite")
    assert (done.returncode, done.stdout) == (1, "") and "is read here" in done.stderr, done.stderr
    assert model.read_bytes() == before and len(list(tmp_path.iterdir())) == (1 if way == "dots" else 2)


@pytest.mark.parametrize("writer", [name for name in WRITERS if "csv" not in name])
@pytest.mark.parametrize("name", ["model.jpeg", "-", "folder/", "dangling", "/dev/null"])
def test_a_name_that_cannot_be_the_output_gets_one_line(daukit_command, tmp_path, monkeypatch, model, writer, name):
    if name == "folder/" and writer in ("prune --figure", "erf --npz"):
        name = "model.jpeg"
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"dangling{WRITERS[writer][1]}").symlink_to("nothing")
    name = f"dangling{WRITERS[writer][1]}" if name == "dangling" else name
    before = sorted(path.name for path in tmp_path.iterdir())
    done = daukit_command(*called(writer, model, name))
    assert done.returncode in (1, 2) and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    assert name.removesuffix("/").rpartition("/")[2] in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("plot-offsets", "MODEL", "-o", "a.png", "--csv", "./x/../a.png"),
        ("prune", "MODEL", "--thresholds", "0,0.1", "--figure", "a.png", "--csv", "./x/../a.png"),
        ("erf", "MODEL", "-o", "a.png", "--npz", "link.npz"),
    ],
)
def test_no_command_writes_two_outputs_into_one_file(daukit_command, tmp_path, monkeypatch, model, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "link.npz").symlink_to("a.png")
    done = daukit_command(*(model if word == "MODEL" else word for word in arguments), "--overwrite")
    assert (done.returncode, done.stdout) == (1, "") and "two outputs" in done.stderr, done.stderr
    assert (tmp_path / "a.png").read_bytes() == b""


@pytest.mark.parametrize("writer", ["prune", "rescale", "plot-offsets --csv"])
def test_folders_of_outputs_are_made_but_not_in_a_dry_run(daukit_command, tmp_path, model, writer):
    output = tmp_path / "new" / "er" / f"out{WRITERS[writer][1]}"
    assert daukit_command(*called(writer, model, output), "--dry-run").returncode == 0
    assert not (tmp_path / "new").exists()
    assert daukit_command(*called(writer, model, output)).returncode == 0
    assert output.is_file()
