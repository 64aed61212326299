"""What users' own code raises is one line of every command, and --debug shows where it came from."""

import sys

import pytest
import torch
from idx import toy_folder
from pictures import class_folders
from torch import nn

import daukit
from daukit.baking import export
from daukit.cli.main import main
from daukit.errors import DaukitError, NetworkError
from daukit.models.costs import multiply_adds
from daukit.models.factory import build_architecture
from daukit.models.graph import trace
from daukit.models.inputs import input_channels
from daukit.preprocessing import Preprocessing

NET = """
import torch
from torch import nn
from daukit import DAUConv2d
class Odd(Exception):
    def __str__(self): return "first line\\nsecond line"
class Check(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
    def forward(self, x):
        if self.kind == "assert": assert x.shape[2] % 32 == 0, f"height {x.shape[2]} is no multiple of 32"
        if self.kind == "key": {}["feat"]
        if self.kind == "empty": raise ValueError
        if self.kind == "odd": raise Odd
        if self.kind == "exit": raise SystemExit(3)
        if self.kind == "runtime": torch.ones(2).view(3)
        return x
def build(kind="assert"):
    if kind == "construction": open("/nowhere/pretrained.pth")
    return nn.Sequential(DAUConv2d(1, 4, 2), nn.MaxPool2d(2), Check(kind), DAUConv2d(4, 4, 2), nn.Flatten(),
                         nn.Linear(4 * 8 * 8, 4))
"""
KINDS = {
    "assert": "AssertionError: height 8 is no multiple of 32",
    "key": "KeyError: 'feat'",
    "empty": "ValueError",
    "odd": "Odd: first line",
    "exit": "SystemExit: 3",
    "runtime": "RuntimeError: shape '[3]' is invalid for input of size 2",
}
COMMANDS = {
    "erf": ("FILE", "--size", "16"),
    "evaluate": ("FILE", "--data", "DATA"),
    "train": ("--data", "DATA", "--epochs", "1", "-o", "new.safetensors"),
    "bake": ("FILE", "--dry-run"),
    "prune --time": ("FILE", "--threshold", "0.1", "--time", "--dry-run"),
    "prune --data": ("FILE", "--threshold", "0.1", "--data", "DATA", "--dry-run"),
    "rescale": ("FILE", "--remove-pool", "1", "--dry-run"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user-code")
    (folder / "net.py").write_text(NET)
    toy_folder(folder / "data")
    torch.manual_seed(0)
    network = daukit.models.factory.build_architecture({"factory": f"{folder / 'net.py'}:build", "config": {}})
    fed = Preprocessing((0.5,), (0.25,), "gray", (16, 16))
    for kind in KINDS:
        network[2].kind = kind
        architecture = {"factory": f"{folder / 'net.py'}:build", "config": {"kind": kind}}
        daukit.save(network, folder / f"{kind}.safetensors", architecture=architecture, preprocessing=fed)
    return folder


@pytest.fixture
def command(folder, monkeypatch, daukit_command):
    def run(name, kind):
        monkeypatch.chdir(folder)
        names = {"FILE": f"{kind}.safetensors", "DATA": "data"}
        arguments = [names.get(argument, argument) for argument in COMMANDS[name]]
        given = ["--model-arg", f"kind={kind}"] if name == "train" else []
        return daukit_command(name.split()[0], *arguments, "--model", "net.py:build", *given)

    return run


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["assert", "key", "odd"])
def test_an_error_in_the_forward_is_one_line_of_every_command(command, name, kind):
    done = command(name, kind)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    # Rescaling looks at the network's graph first, where the assertion fails in the words of torch.fx.
    assert ("cannot trace the network (" if name == "rescale" else "its forward failed on (") in errors[0]
    assert KINDS[kind] in errors[0] or (name, kind) == ("rescale", "assert")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_raised_is_told_in_one_line(command, kind):
    done = command("erf", kind)
    assert done.stderr.splitlines()[-1].endswith(f"net.py:build: its forward failed on (1, 1, 16, 16): {KINDS[kind]}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(:", "its import failed: SyntaxError: "),
        ("import not_installed_here", "its import failed: ModuleNotFoundError: No module named 'not_installed_here'"),
        ("import argparse; argparse.ArgumentParser().error('two')", "its import failed: SystemExit: 2"),
        ("open('/nowhere/x')", "its import failed: FileNotFoundError: "),
        ("def build(): open('/nowhere/x')", "its construction failed: FileNotFoundError: "),
        ("def build(): raise SystemExit", "its construction failed: SystemExit"),
        ("def build(): return 3", "returned int, not a torch.nn.Module"),
    ],
)
def test_errors_of_import_and_construction_are_one_line_too(tmp_path, monkeypatch, daukit_command, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(text + "\n")
    done = daukit_command("erf", "--model", "net.py:build", "--size", "8")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: net.py:build: {message}" in done.stderr and "Traceback" not in done.stderr


def test_an_option_that_a_factory_lacks_is_a_usage_error(tmp_path, monkeypatch, daukit_command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("def build(width): pass\n")
    done = daukit_command("erf", "--model", "net.py:build", "--size", "8")
    assert (done.returncode, done.stdout) == (2, "")
    said = "Invalid value for --model-arg: net.py:build: missing a required argument: 'width'"
    assert said in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_users_own_line(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["daukit", "--debug", "erf", "--model", "net.py:build", "--size", "16"])
    with pytest.raises(DaukitError) as caught:
        main()
    chain, error = [], caught.value
    while error is not None:
        chain.append(type(error).__name__)
        error = error.__cause__
    assert chain[-2:] == ["NetworkError", "AssertionError"]
    daukit.errors.speak_to_shell(False)


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("no gradient")


class Clones(nn.Module):
    def forward(self, x):
        return Backward.apply(x)


def test_an_error_in_the_backward_names_the_network():
    with pytest.raises(NetworkError, match=r"Clones: its backward failed on .*: NotImplementedError: no gradient"):
        daukit.effective_receptive_field(Clones(), "", torch.ones(1, 1, 4, 4))


def test_inputs_that_do_not_fit_into_memory_are_one_line(folder, monkeypatch, daukit_command):
    monkeypatch.chdir(folder)
    done = daukit_command("erf", "--model", "net.py:build", "--size", "16", "--images", "9" * 15)
    assert done.returncode == 1 and "inputs (999999999999999, 1, 16, 16) do not fit into memory" in done.stderr


@pytest.mark.parametrize("raised", [SystemExit(3), KeyError("feat"), RecursionError("deep")], ids=repr)
def test_a_forward_that_ends_the_program_is_a_forward_that_fails(raised):
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            raise raised

    for operation in (
        lambda: trace(Ends(), "this", ""),
        lambda: multiply_adds(Ends(), (1, 1, 8, 8)),
        lambda: export(Ends(), torch.zeros(2, 1, 8, 8)),
    ):
        with pytest.raises(ValueError, match=str(raised)):
            operation()
    assert input_channels(Ends()) == 1


NAMESAKES = """
from torch import nn
from daukit import DAUConv2d
def make(in_channels, input_size, num_classes, task):
    # words of the user's own: channels behind the stem, positions to pool to, columns of the scores
    stem = nn.Sequential(DAUConv2d(1, in_channels, 2), nn.BatchNorm2d(in_channels), nn.AdaptiveAvgPool2d(input_size))
    return nn.Sequential(stem, nn.Flatten(), nn.Linear(in_channels * input_size ** 2, num_classes[0]))
"""


def test_a_users_network_says_the_size_of_the_pictures_that_it_learns_from(tmp_path, monkeypatch, daukit_command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(input_size):\n"
        "    height, width = input_size\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 3))\n"
    )
    class_folders(tmp_path / "data")
    words = ("--model", "net.py:make", "--model-arg", "input_size=8,12", "--epochs", "1", "-o", "net.safetensors")
    done = daukit_command("train", "--data", "data", *words)
    assert done.returncode == 0, done.stderr
    assert daukit.read("net.safetensors").header.preprocessing.input_size == (8, 12)


SLOWLY = [
    ("prune", "NET", "--threshold", "0.01", "--recalibrate", "DATA", "-o", "OUT"),
    ("snap", "NET", "--data", "DATA", "-o", "OUT"),
    ("erf", "NET", "--layer", "0.0", "--data", "DATA", "--images", "2", "--json"),
    ("bake", "NET", "--dry-run"),
    ("train", "--initial-checkpoint", "NET", "--data", "DATA", "--epochs", "1", "-o", "OUT"),
]


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "NET", "--data", "DATA"),
        ("prune", "NET", "--remove", "0.25", "--score", "taylor", "--data", "DATA", "-o", "OUT"),
        ("info", "NET"),
        *(pytest.param(words, marks=pytest.mark.slow) for words in SLOWLY),
    ],
    ids=lambda words: words[0],
)
def test_options_that_are_called_as_daukits_own_mean_what_the_user_means(tmp_path, monkeypatch, daukit_command, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "namesakes.py").write_text(NAMESAKES)
    data = toy_folder(tmp_path / "DATA", 12, 8)
    config = {"in_channels": 6, "input_size": 5, "num_classes": [10], "task": "segmentation"}
    architecture = {"factory": "namesakes.py:make", "config": config}
    images = daukit.datasets.open_dataset(data, "test").preprocessing()
    daukit.save(build_architecture(architecture), "NET", architecture=architecture, preprocessing=images)
    done = daukit_command(*words, "--model", "namesakes.py:make")
    assert done.returncode == 0, done.stderr
