"""The command line from outside: exit codes, what goes to which stream, and nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from idx import toy_folder

import daukit
from daukit.checkpoint import from_model
from daukit.cli import models
from daukit.cli.main import main
from daukit.datasets import load_folder
from daukit.errors import CheckpointError
from daukit.models import record_of

DAUKIT = Path(sys.executable).parent / "daukit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def model(tmp_path, folder):
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2, num_classes=4, input_size=[16, 16])
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    path = tmp_path / "model.safetensors"
    daukit.save(network, path)
    return path


def spoiled(folder, kind):
    """A file that no command may choke on."""
    model, path = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2), folder / f"{kind}.bad"
    if kind == "nan":
        torch.nn.init.constant_(model.conv2.weight, float("nan"))
    data = safetensors.torch.save(model.state_dict(), {"daukit": from_model(model).header.to_json()})
    path.write_bytes(data[:500] if kind == "truncated" else data)
    if kind == "pickle":
        torch.save({"weight": model}, path)
    return path


@pytest.mark.parametrize("kind", ["nan", "truncated", "pickle"])
@pytest.mark.parametrize("command", ["info", "prune", "plot-offsets", "erf", "rescale"])
def test_no_command_chokes_on_a_broken_file(tmp_path, command, kind, daukit_command):
    path = spoiled(tmp_path, kind)
    before, drawn = path.read_bytes(), command in ("plot-offsets", "erf")
    output = tmp_path / ("out.png" if drawn else "out.safetensors")
    options = {"info": (), "prune": ("--threshold", "0.1"), "rescale": ("--remove-pool", "pool3")}.get(command, ())
    written = () if command == "info" else ("-o", output)
    extra = ("--model", "shallow_dau") if kind == "pickle" else ()
    done = daukit_command(command, path, *options, *written, *extra)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(path) in done.stderr, done.stderr
    assert path.read_bytes() == before and not output.exists()


def test_a_disk_that_refuses_the_file_is_named(model, daukit_command):
    done = daukit_command("prune", model, "--threshold", "0.5", "-o", "/proc/pruned.safetensors")
    assert done.returncode == 1 and "/proc/pruned.safetensors: " in done.stderr and done.stderr.count("\n") == 1


def test_an_output_in_the_place_of_the_source_is_refused(model, daukit_command):
    before = model.read_bytes()
    done = daukit_command("prune", model, "--threshold", "0.5", "-o", model, "--overwrite", "--json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
    assert model.read_bytes() == before


TRAIN = (
    "--channels",
    "4,4,8",
    "--units",
    "2",
    "--epochs",
    "1",
    "--batch-size",
    "32",
    "--lr",
    "0.05",
    "--mu-lr-factor",
    "20",
)


def test_train_evaluate_prune_and_info_tell_one_story(tmp_path, folder, daukit_command):
    output = tmp_path / "m.safetensors"
    trained = daukit_command("train", "--data", folder, "-o", output, *TRAIN, "--json")
    assert trained.returncode == 0, trained.stderr
    accuracy = json.loads(trained.stdout)["accuracy"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.jsonl", "m.resume.safetensors", "m.safetensors"]

    evaluated = json.loads(daukit_command("evaluate", output, "--data", folder, "--json").stdout)
    assert evaluated["accuracy"] == accuracy and evaluated["images"] == 48

    pruned_path = tmp_path / "p.safetensors"
    pruned = json.loads(
        daukit_command("prune", output, "--threshold", "0.3", "-o", pruned_path, "--data", folder, "--json").stdout
    )
    info = json.loads(daukit_command("info", pruned_path, "--json").stdout)
    assert pruned["units_before"] == 4 * 1 * 2 + 4 * 4 * 2 + 8 * 4 * 2
    assert pruned["units_after"] == info["units"] == sum(layer["units"] for layer in info["layers"])
    assert pruned["accuracy_before"] == accuracy and pruned["bytes_after"] == pruned_path.stat().st_size
    assert [entry["operation"] for entry in info["history"]] == ["train", "prune"]

    swept = json.loads(daukit_command("prune", output, "--thresholds", "0,0.3", "--data", folder, "--json").stdout)[
        "sweep"
    ]
    assert swept[0] == {"threshold": 0, "units": pruned["units_before"], "accuracy": accuracy}
    assert swept[1] == {"threshold": 0.3, "units": pruned["units_after"], "accuracy": pruned["accuracy_after"]}

    tuned = daukit_command(
        "train",
        "--data",
        folder,
        "-o",
        tmp_path / "t.safetensors",
        "--from",
        pruned_path,
        "--epochs",
        "1",
        "--overwrite",
    )
    assert tuned.returncode == 0, tuned.stderr
    assert (
        json.loads(daukit_command("info", tmp_path / "t.safetensors", "--json").stdout)["units"]
        == pruned["units_after"]
    )


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, model, daukit_command):
    output = tmp_path / "p.safetensors"
    dry = json.loads(daukit_command("prune", model, "--threshold", "0.5", "--dry-run", "--json").stdout)
    assert not output.exists()
    real = json.loads(daukit_command("prune", model, "--threshold", "0.5", "-o", output, "--json").stdout)
    assert {key: real[key] for key in dry if key != "output"} == {key: dry[key] for key in dry if key != "output"}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("prune", "MODEL", "--threshold", "1.5", "-o", "OUT"), 2, "--threshold"),
        (("prune", "MODEL", "--thresholds", "0,x", "--json"), 2, "not a list of numbers"),
        (("prune", "MODEL", "--thresholds", "0,2"), 2, "not within"),
        (("prune", "MODEL"), 2, "either --threshold or --thresholds"),
        (("prune", "MODEL", "--threshold", "0.1"), 2, "--dry-run"),
        (("prune", "MODEL", "--threshold", "0.1", "-o", "MODEL"), 1, "is read here"),
        (("prune", "MODEL", "--threshold", "0.1", "-o", "-"), 1, "not streams"),
        (("prune", "nothing.safetensors", "--threshold", "0.1", "-o", "OUT"), 1, "no such file"),
        (("prune", "MODEL", "--threshold", "0.1", "-o", "OUT", "--data", "nowhere"), 1, "no such folder"),
        (("prune", "MODEL", "--relative-to", "net", "--threshold", "0.1"), 2, "'net' is not one of"),
        (("evaluate", "MODEL", "--data", "nowhere"), 1, "no such folder"),
        (
            ("evaluate", "MODEL", "--data", "DATA", "--device", "abacus"),
            2,
            "'abacus' cannot be used: torch knows no such device; give auto, cpu, cuda",
        ),
        (("info", "README.md"), 1, "no such file"),
        (("inof", "MODEL"), 2, "No such command"),
        (("train", "--data", "nowhere", "-o", "OUT"), 1, "no such folder"),
        (("train", "--data", "DATA", "-o", "m.resume.safetensors"), 2, "name of a training's state"),
        (("train", "--data", "DATA", "-o", "OUT", "--channels", "4,x"), 2, "list of integers"),
        (
            ("train", "--data", "DATA", "-o", "OUT", "--model-arg", "channels=3"),
            2,
            "option channels of shallow_dau must be",
        ),
        (("train", "--data", "DATA", "-o", "OUT", "--milestones", "0"), 2, "counted from 1"),
        (("train", "--data", "DATA", "-o", "OUT", "--schedule", "cosine", "--gamma", "1"), 2, "has no steps"),
        (("train", "--data", "DATA", "-o", "OUT", "--mu-lr-factor", "1e300"), 2, "out of all bounds"),
        (("train", "--data", "DATA", "-o", "OUT", "--seed", f"{2**63}"), 2, "out of all bounds"),
        (("evaluate", "MODEL", "--data", "DATA", "--device", "meta"), 2, "'meta' holds no numbers"),
        (("plot-offsets", "MODEL", "--json", "--near", "inf"), 2, "out of all bounds"),
        (("bake", "MODEL", "--dry-run", "--size", "9" * 30), 2, "at most 65,536 pixels"),
        (("bench", "--threads", "9" * 10), 2, "--threads"),
        (("convert", "MODEL", "--substitute", "-o", "OUT"), 1, "no convolution that a DAU layer can stand for"),
        (("erf", "MODEL", "--compare-model", "shallow"), 2, "0 files of --compare"),
        (("erf", "MODEL", "--compare-model-arg", "units=3"), 2, "no network of --compare takes options"),
        (("erf", "--model", "shallow_dau", "--model-arg", "units=x"), 2, "option units of shallow_dau must be"),
        (("train", "--data", "DATA", "-o", "OUT", "--model", "shalow"), 1, "did you mean 'shallow'"),
        (("train", "--data", "DATA", "-o", "OUT", "--model", "shallow", "--units", "2"), 2, "units"),
        (("train", "--data", "DATA", "-o", "OUT", "--from", "MODEL", "--units", "2"), 2, "drop --units"),
        (("train", "--data", "DATA", "-o", "OUT", "--resume"), 1, "out.resume.safetensors: there is no such file"),
    ],
)
def test_a_wrong_call_says_what_and_loses_nothing(
    tmp_path, folder, model, args, code, message, daukit_command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    names = {"MODEL": model, "OUT": tmp_path / "out.safetensors", "DATA": folder}
    done = daukit_command(*(names.get(a, a) for a in args))
    assert done.returncode == code, done.stderr
    text = " ".join(done.stderr.replace("│", "").split())
    assert message in text and "Traceback" not in text and "Value error" not in text
    assert done.stdout == "" and (code == 2 or done.stderr.count("\n") == 1)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"] and model.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes"), False),
        (ValueError("a bug"), False),
    ],
)
def test_a_lack_of_memory_is_told_in_one_line_and_a_bug_shows_its_traceback(
    monkeypatch, daukit_command, error, is_told
):
    def broken(_):
        raise error

    monkeypatch.setattr(models, "print_answer", broken)
    if not is_told:
        with pytest.raises(type(error)):
            daukit_command("models")
        return
    done = daukit_command("models")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "not enough memory" in done.stderr


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["daukit", "--debug", "info", "nothing"])
    with pytest.raises(CheckpointError):
        main()


@pytest.mark.slow
@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_tables_keep_all_columns_in_a_pipe(model, term):
    environment = {"PATH": "/usr/bin:/bin", "TERM": term, "COLUMNS": "40"}
    done = subprocess.run([DAUKIT, "info", model], capture_output=True, text=True, check=True, env=environment)
    header = next(line for line in done.stdout.splitlines() if "layer" in line)
    assert all(word in header for word in ("channels", "units", "per filter", "parameters", "sigma", "at limit"))


HELP = """
import sys
import daukit.cli.main
try:
    daukit.cli.main.app([sys.argv[1], "--help"])
except SystemExit:
    sys.exit(bool({"torch", "matplotlib", "numpy", "rich", "pydantic"} & set(sys.modules)))
"""


def test_version_and_help_load_nothing_heavy():
    assert (
        subprocess.run([DAUKIT, "--version"], capture_output=True, text=True, check=True).stdout
        == f"daukit {daukit.__version__}\n"
    )
    commands = ("train", "evaluate", "info", "prune", "plot-offsets", "erf", "rescale")
    help_text = subprocess.run([DAUKIT, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in help_text for command in commands)
    for command in commands:
        done = subprocess.run([sys.executable, "-c", HELP, command], capture_output=True, check=False)
        assert done.returncode == 0, f"{command} --help loads torch, or rich, or pydantic"


def test_checks_say_what_runs_and_why_not(daukit_command):
    data = json.loads(daukit_command("checks", "--json").stdout)
    assert data["daukit"] == daukit.__version__ and data["packages"]["torch"] == torch.__version__
    assert data["backends"] == daukit.ops.backends() and "cpu" in data["devices"]
    assert "backends: dense" in daukit_command("checks").stdout
