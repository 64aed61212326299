"""What ``daukit train`` says of the moves of units: a line per epoch, and a warning at most once a run."""

import json

import pytest
from idx import toy_folder

import daukit.training.pace

COMMAND = "train"


@pytest.fixture
def call(run, tmp_path, monkeypatch):
    """Train a tiny network in ``tmp_path`` whose displacements hardly learn: exit code, stdout and stderr."""
    toy_folder(tmp_path / "toy", 12, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(daukit.training.pace, "_STEPS", 1)
    small = ("--channels", "2,2,2", "--units", "1", "--batch-size", "6")
    slow = ("--mu-lr-factor", "0.001", "--schedule", "step")
    return lambda *arguments: run("--data", "toy", "-o", "m.safetensors", *small, *slow, *arguments)


@pytest.mark.filterwarnings("default")
def test_epochs_tell_of_moves_and_a_run_warns_once_even_if_it_resumes(call):
    code, out, error = call("--epochs", "2")
    assert code == 0 and "accuracy" in out
    rate, first, warning, second = error.splitlines()[:4]
    assert rate == "displacements learn by SGD, at first at a rate of 5e-05"
    assert first.startswith("epoch 1/2: test accuracy ")
    assert first.endswith(", units moved 0.00 px (0% beyond a pixel, 0% at the limit)")
    assert warning.startswith("warning: displacements of conv1, conv2 and conv3 are frozen in effect: ")
    assert "; raise --mu-lr-factor (now 0.001), or" in warning and second.startswith("epoch 2/2: ")
    code, _, error = call("--epochs", "3", "--resume", "--overwrite")
    assert code == 0 and "warning" not in error and error.count("units moved") == 1 and "epoch 3/3: " in error


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("option", ["--mu-lr", "--mu-lr-factor"])
def test_an_absurd_test_loss_names_the_rate_by_which_displacements_learn(run, tmp_path, monkeypatch, option):
    data = toy_folder(tmp_path / "toy", 12, 8)
    monkeypatch.setattr("daukit.training.absurd_loss", lambda guessing: 0.0)
    small = ("--channels", "2,2,2", "--units", "1", "--batch-size", "6", "--epochs", "1", option, "0.01")
    code, out, error = run("--data", data, "-o", tmp_path / "m.safetensors", *small)
    assert code == 0 and f"is absurd: lower --lr or {option}\n" in error, out + error


@pytest.mark.parametrize(
    ("options", "rates", "words"),
    [
        # 12 images in two steps for an epoch: a tenth of a pixel a step at most; for 1,000, of half a cosine, less.
        ((), [0.1] * 3, "by Adam, at 0.1 px a step at first"),
        (("--epochs", "500"), [(1000 * 3 / 8) ** -0.5] * 3, "by Adam, at 0.0516 px a step at first"),
        # The rate is 0.05, times (channels in + channels out) * units / 4.
        (("--mu-lr-factor", "auto"), [0.3, 1.0, 0.6], "by SGD, at first at a rate of 0.3 to 1, by layer"),
        (("--mu-lr-factor", "500"), [25.0] * 3, "by SGD, at first at a rate of 25"),
        (("--optimizer", "adam", "--mu-lr", "0.02"), [0.02] * 3, "by Adam, at 0.02 px a step at first"),
        (("--mu-lr", "0"), [0.0] * 3, "displacements stay where they are: their rate is 0"),
    ],
)
def test_what_automatic_rates_become_is_said_before_a_training(run, tmp_path, options, rates, words):
    data = toy_folder(tmp_path / "toy", 12, 8)
    small = ("--channels", "2,8,4", "--units", "8,8,4", "--batch-size", "6", "--epochs", "1")
    code, out, error = run("--data", data, "-o", tmp_path / "m.safetensors", *small, *options, "--dry-run", "--json")
    assert code == 0 and words in error, error
    assert list(json.loads(out)["mu_lr"]) == ["conv1", "conv2", "conv3"]
    assert list(json.loads(out)["mu_lr"].values()) == pytest.approx(rates, rel=1e-5)


@pytest.mark.filterwarnings("default")
def test_notes_on_moves_leave_answers_alone(call):
    code, out, error = call("--epochs", "1", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 1 and "frozen in effect" in error and "epoch 1/1: " in error
    assert call("--epochs", "1", "--quiet", "--overwrite") == (0, "m.safetensors\n", "")


def test_rates_of_displacements_that_a_network_lacks_are_refused(run, tmp_path):
    data = toy_folder(tmp_path / "toy", 12, 8)
    plain = ("--data", data, "-o", tmp_path / "m.safetensors", "--model", "shallow", "--channels", "2,2,2")
    for option, value in (("--mu-lr", "0"), ("--mu-lr-factor", "auto"), ("--mu-power", "1")):
        also = ("--schedule", "poly") if option == "--mu-power" else ()
        code, out, error = run(*plain, "--batch-size", "6", option, value, *also, "--dry-run")
        assert code == 2 and out == "", out
        assert f"{option}: shallow has no displacements; drop it" in " ".join(error.replace("│", "").split())
