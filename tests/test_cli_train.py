"""``daukit train`` and ``evaluate`` from outside: files of a run, stopping, going on, dry runs, what does not fit."""

import json
import os
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch
from idx import toy_folder

import daukit
import daukit.training.stepping
from daukit.models import record_of

COMMAND = "train"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 12, 8)


@pytest.fixture
def call(run, folder, tmp_path, monkeypatch):
    """Train a tiny network into ``tmp_path``, the current folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def train(output, *arguments, epochs=2, seed=0):
        small = ("--channels", "2,2,2", "--units", "1", "--batch-size", "6", "--epochs", epochs, "--seed", seed)
        rates = ("--schedule", "step", "--mu-lr", "0.01")  # with which a longer run may go on
        return run("--data", folder, "-o", output, *small, *rates, *arguments)

    return train


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(one, other):
    one, other = safetensors.torch.load_file(one), safetensors.torch.load_file(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_runs_share_a_folder_and_each_goes_on_as_itself(call, tmp_path):
    assert [call(f"seed{n}.safetensors", seed=n)[0] for n in (1, 2)] == [0, 0]
    assert names(tmp_path) == [
        f"seed{n}.{end}" for n in (1, 2) for end in ("jsonl", "resume.safetensors", "safetensors")
    ]
    for n in (1, 2):
        assert call(f"long{n}.safetensors", seed=n, epochs=3)[0] == 0
        assert call(f"seed{n}.safetensors", "--resume", "--overwrite", seed=n, epochs=3)[0] == 0
        assert same(f"seed{n}.safetensors", f"long{n}.safetensors")


def test_the_same_output_again_is_refused_with_advice_that_helps(call, tmp_path):
    assert call("m.safetensors")[0] == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, error = call("m.safetensors")
    assert code == 1 and error.count("\n") == 1
    assert all(word in error for word in ("m.resume.safetensors", "--resume", "--overwrite", "-o"))
    (tmp_path / "m.safetensors").unlink()
    assert call("m.safetensors")[0] == 1
    assert call("m.safetensors", "--resume", "--lr", "0.5")[2].count("lr: 0.05 there, 0.5 here") == 1
    several = call("m.safetensors", "--resume", "--lr", "0.5", "--momentum", "0.5", "--sigma", "0.4")[2]
    assert "(sigma: 0.3 there, 0.4 here; lr: 0.05 there, 0.5 here; momentum: 0.9 there, 0.5 here)" in several
    code, _, error = call("m.safetensors", "--resume", seed=1)
    assert code == 1 and "seed: 0 there, 1 here" in error and "--resume" in error
    code, _, error = call("m.safetensors", "--resume", "--model-arg", "max_displacement=3")
    assert code == 1 and "max_displacement: None there, 3 here" in error
    del written["m.safetensors"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written


def test_each_file_of_a_run_is_refused_where_it_is_taken(call, tmp_path):
    for name in ("m.safetensors", "m.resume.safetensors", "m.jsonl", "m.best.safetensors", "m.epoch0002.safetensors"):
        (tmp_path / name).write_text("precious")
        code, _, error = call("m.safetensors", "--best", "--save-every", "2")
        assert code == 1 and f"{name}: " in error and error.count("\n") == 1
        assert names(tmp_path) == [name] and (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()


def test_a_state_of_daukit_0_1_is_gone_on_with_if_it_is_of_this_run(call, tmp_path):
    assert call("whole.safetensors", epochs=3)[0] == 0
    assert call("m.safetensors")[0] == 0
    (tmp_path / "m.resume.safetensors").rename(tmp_path / "resume.safetensors")
    (tmp_path / "m.safetensors").unlink()
    old = (tmp_path / "resume.safetensors").read_bytes()
    code, _, error = call("m.safetensors", "--resume", epochs=3, seed=1)
    assert code == 1 and "seed: 0 there, 1 here" in error
    code, _, error = call("m.safetensors", "--resume", epochs=3)
    assert code == 0 and "going on from this state of daukit 0.1" in error, error
    assert same("m.safetensors", "whole.safetensors") and (tmp_path / "resume.safetensors").read_bytes() == old
    (tmp_path / "resume.safetensors").write_text("nothing of ours")
    code, _, error = call("n.safetensors", "--resume")
    assert code == 1 and "n.resume.safetensors: there is no such file" in error


@pytest.fixture
def interruptible():
    """Ctrl-C as a program in the foreground meets it: shells start those in the background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
@pytest.mark.parametrize("step", [1, 4])
def test_a_run_that_is_stopped_says_how_to_go_on_and_does(
    call, daukit_command, tmp_path, monkeypatch, number, code, name, step
):
    assert call("whole.safetensors", epochs=3)[0] == 0
    real, steps = daukit.training.stepping.project_displacements, []

    def stopping(model):
        real(model)
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(daukit.training.stepping, "project_displacements", stopping)
        before = signal.getsignal(signal.SIGTERM)
        ended, out, error = call("m.safetensors", "--quiet", epochs=3)
        assert signal.getsignal(signal.SIGTERM) is before
    assert (ended, out) == (code, "") and f"stopped by {name}" in error and error.count("\n") == 1
    safe = "1 step of epoch 1 is" if step == 1 else "epoch 1 and 2 steps of epoch 2 are"
    assert f"{safe} safe in m.resume.safetensors" in error
    log = [] if step == 1 else ["m.jsonl"]
    assert names(tmp_path) == [*log, "m.resume.safetensors", *(f"whole.{end}" for end in ENDS)]
    _, *again = shlex.split(error.partition("go on with: ")[2])
    assert daukit_command(*again).returncode == 0
    assert same("m.safetensors", "whole.safetensors")


ENDS = ("jsonl", "resume.safetensors", "safetensors")


@pytest.mark.parametrize(
    ("schedule", "advice"), [("step", "raise --epochs above 2"), ("cosine", "--initial-checkpoint m.safetensors")]
)
def test_resuming_after_the_end_says_what_to_do(call, tmp_path, schedule, advice):
    assert call("m.safetensors", "--schedule", schedule)[0] == 0
    for overwrite in ((), ("--overwrite",)):
        code, _, error = call("m.safetensors", "--schedule", schedule, "--resume", *overwrite, epochs=2)
        assert code == (0 if overwrite else 1)
        assert overwrite or (advice in error and ("raise --epochs" in error) == (schedule == "step"))
    longer = call("m.safetensors", "--schedule", schedule, "--resume", epochs=3)
    assert longer[0] == 1 and "m.safetensors: exists already; pass --overwrite as well" in longer[2]


def test_a_kill_between_the_last_state_and_the_output_loses_nothing(call, tmp_path):
    assert call("m.safetensors")[0] == 0
    whole = safetensors.torch.load_file("m.safetensors")
    (tmp_path / "m.safetensors").unlink()
    assert call("m.safetensors", "--resume")[0] == 0
    assert all(torch.equal(whole[name], t) for name, t in safetensors.torch.load_file("m.safetensors").items())


def test_the_best_epoch_is_told_and_said_to_be_chosen(call, tmp_path):
    code, out, _ = call("m.safetensors", "--best", "--save-every", "2", epochs=4)
    assert code == 0 and "chosen by this accuracy" in out
    log = [json.loads(line)["test_accuracy"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert record_of(daukit.load("m.best.safetensors")).history[-1]["arguments"]["test_accuracy"] == max(log)
    assert {"m.epoch0002.safetensors", "m.epoch0004.safetensors"} < set(names(tmp_path))
    assert same("m.epoch0004.safetensors", "m.safetensors")


def test_checkpoints_that_no_epoch_would_keep_are_a_usage_error(call, tmp_path):
    code, _, error = call("m.safetensors", "--save-every", "3", epochs=2)
    assert code == 2 and "--save-every" in error and "multiple of 3" in " ".join(error.split())
    assert names(tmp_path) == []


def test_a_run_that_goes_on_does_not_write_over_what_it_started_from(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    daukit.save(
        daukit.create_model("shallow_dau", channels=[2, 2, 2], units=1, input_size=[16, 16]), "m.best.safetensors"
    )
    arguments = (
        "--data",
        folder,
        "-o",
        "m.safetensors",
        "--initial-checkpoint",
        "m.best.safetensors",
        "--batch-size",
        6,
    )
    assert run(*arguments, "--epochs", 1)[0] == 0
    before = (tmp_path / "m.best.safetensors").read_bytes()
    code, _, error = run(*arguments, "--epochs", 2, "--resume", "--overwrite", "--best")
    assert code == 1 and "m.best.safetensors: is read here" in error
    assert (tmp_path / "m.best.safetensors").read_bytes() == before


def test_units_are_rounded_to_whole_pixels_on_the_way(call, tmp_path):
    assert call("m.safetensors", "--whole-pixels", "--best")[0] == 0
    for name in ("m.safetensors", "m.best.safetensors"):
        layer = daukit.load(name).conv2
        assert layer.whole_pixels and torch.equal(layer.mu, layer.mu.round())
    code, _, error = call("m.safetensors", "--whole-pixels", "--resume", "--overwrite", epochs=3)
    assert code == 1 and "epochs: 2 there, 3 here" in error  # the snap would have been another one's
    assert "after 25% of the steps" in call("n.safetensors", "--whole-pixels", "--dry-run")[1]
    assert "after 60% of the steps" in call("n.safetensors", "--whole-pixels", "--snap-at", "0.6", "--dry-run")[1]


@pytest.mark.parametrize(
    ("arguments", "option", "words"),
    [
        (("--snap-at", "0.5"), "--snap-at", "nothing is rounded"),
        (("--whole-pixels", "--snap-at", "1"), "--snap-at", "below 1"),
        (("--whole-pixels", "--learn-sigma", "unit"), "--whole-pixels", "sigma per unit"),
    ],
)
def test_whole_pixels_that_cannot_be_are_usage_errors(call, tmp_path, arguments, option, words):
    code, _, error = call("m.safetensors", *arguments)
    assert code == 2 and option in error and words in " ".join(error.replace("│", " ").split())
    assert names(tmp_path) == []


def test_a_thread_may_train(call, tmp_path):
    with ThreadPoolExecutor() as pool:
        code, _, error = pool.submit(call, "m.safetensors", epochs=1).result()
    assert code == 0, error


def test_a_dry_run_checks_everything_and_writes_nothing(call, tmp_path):
    code, out, _ = call("m.safetensors", "--dry-run", "--json", epochs=7)
    dry = json.loads(out)
    assert code == 0 and dry["output"] is None and dry["accuracy"] is None and names(tmp_path) == []
    assert (dry["epochs"], dry["images"], dry["steps"]) == (7, 12, 2)
    real = json.loads(call("m.safetensors", "--json")[1])
    assert all(real[key] == dry[key] for key in ("parameters", "images", "steps"))
    assert "2 steps" in call("n.safetensors", "--dry-run")[1]
    assert call("m.safetensors", "--dry-run")[0] == 1  # the names are taken
    assert call("n.safetensors", "--dry-run", "--sigma", "-1")[0] == 1
    assert names(tmp_path) == [f"m.{end}" for end in ENDS]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_images_that_do_not_fit_are_named_with_the_file_and_the_folder(tmp_path, folder, daukit_command, command):
    torch.manual_seed(0)
    file, data = tmp_path / "net.safetensors", tmp_path / "data"
    small = {"channels": [2, 2, 2], "units": 1}

    def refused(**config):
        network = daukit.create_model("shallow_dau", **small, **config)
        channels = config.get("in_channels", 1)
        daukit.save(network, file, overwrite=True, preprocessing=preprocessing(channels, config["input_size"]))
        chosen = ("--initial-checkpoint", file, "-o", tmp_path / "out.safetensors") if command == "train" else (file,)
        done = daukit_command(command, *chosen, "--data", data)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stdout == ""
        assert names(tmp_path) == ["data", "net.safetensors"]
        return done.stderr

    def preprocessing(channels, size):
        return daukit.preprocessing.Preprocessing(
            (0.5,) * channels, (0.5,) * channels, "gray" if channels == 1 else "rgb", tuple(size)
        )

    toy_folder(data, 12, 8)
    takes = f"{file}'s network takes"
    has = f"the images of {data} have 1 channel of 16x16"
    assert f"{takes} 3 channels of 32x32, {has}" in refused(in_channels=3, input_size=[32, 32])
    assert f"{takes} 1 channel of 32x32, {has}: its forward failed on (1, 1, 16, 16)" in refused(input_size=[32, 32])
    assert f"{file}'s network has 3 classes, the images of {data} have 4" in refused(num_classes=3, input_size=[16, 16])


def test_a_network_of_ones_own_that_fails_is_named_with_its_reason(tmp_path, folder, daukit_command):
    (tmp_path / "net.py").write_text(NET)
    for name, reason in (("odd", "ZeroDivisionError: division by zero"), ("pair", "got tuple"), ("flat", "got (1,)")):
        factory = f"{tmp_path / 'net.py'}:{name}"
        done = daukit_command("train", "--data", folder, "-o", tmp_path / "m.safetensors", "--model", factory)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert factory in done.stderr and reason in done.stderr
    assert "m.safetensors" not in names(tmp_path)


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give, self.linear = give, nn.Linear(1, 4)

    def forward(self, x):
        return self.give(self.linear(x.mean((2, 3))))

odd, pair, flat = lambda: Net(lambda y: 1 / 0), lambda: Net(lambda y: (y, y)), lambda: Net(lambda y: y[:, 0])
"""
