"""Trainings that are stopped at any step go on bit for bit, as if nobody had stopped them."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from idx import toy_folder
from safetensors import safe_open
from torch import nn

import daukit
from daukit.datasets import load_folder
from daukit.errors import CheckpointError
from daukit.models import record_of
from daukit.tasks import task_of
from daukit.training import RunFiles, TrainingOptions, TrainingStoppedError, read_state, train

STEPS = 4  # an epoch, the last one of fewer images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 26, 12)


class Noisy(nn.Module):
    """Draws from torch's own source of chance at each step."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.3, self.training)


def new_model(folder):
    torch.manual_seed(3)
    model = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=2, num_classes=4, input_size=[16, 16])
    model.pool1 = nn.Sequential(nn.MaxPool2d(2), Noisy())
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(model, folder, place, *, resume=False, save_state_every=None, stop=None, on_step=None, on_save=None, **options):
    """Train; ``stop`` is asked how often ``should_stop`` was."""
    asked = iter(range(1, 10**6))
    files = RunFiles(place / "m.safetensors")
    results = train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"),
        TrainingOptions(**{"epochs": 3, "batch_size": 8, "lr": 0.05, "mu_lr_factor": 20.0, **options}),
        resume_path=files.state, log_path=files.log, resume=resume, save_state_every=save_state_every,
        on_step=on_step, on_save=on_save, should_stop=None if stop is None else lambda: next(asked) == stop,
    )  # fmt: skip
    return [{**result.to_json(), "seconds": 0} for result in results]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state(place):
    return safetensors.torch.load_file(place / "m.resume.safetensors")


CASES = {
    "augmented": {"mirror": True, "shift": 2, "schedule": "cosine"},
    "milestones": {"milestones": (1, 2), "weight_decay": 0.1},
    "whole pixels": {"snap_at": 0.4, "mirror": True},
    "both": {"mu_lr_factor": None, "mu_lr": 0.1, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "lr": 0.01, "mu_lr": 0.1, "weight_decay": 0.1, "schedule": "poly", "warm_up": 1.5},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "accumulate": 3, "clip_norm": 0.5, "schedule": "constant"},
    "average": {"ema": 0.9, "precision": "bf16"},
    "average of whole pixels": {"ema": 0.8, "snap_at": 0.4, "optimizer": "adam", "lr": 0.01},
}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """For each case what a run makes that nobody stops: its network, its last state, its results."""
    made = {}
    for name, options in CASES.items():
        place, model = tmp_path_factory.mktemp("whole"), new_model(folder)
        results = run(model, folder, place, **options)
        made[name] = (model.state_dict(), state(place), results)
    return made


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_stopped_at_random_steps_comes_to_the_same_bits(folder, tmp_path, whole, case, seed):
    chance, resume = random.Random(seed), False
    while True:
        model = new_model(folder)
        if resume:
            torch.rand(chance.randint(1, 9))  # what another process has drawn by then
        try:
            results = run(model, folder, tmp_path, resume=resume, stop=chance.randint(1, 9), **CASES[case])
            break
        except TrainingStoppedError:
            resume = True
    assert same(model.state_dict(), whole[case][0]) and same(state(tmp_path), whole[case][1])
    assert results == whole[case][2]


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_goes_on_from_the_last_step_that_it_saved(folder, tmp_path, whole, case):
    class KilledError(Exception):
        pass

    def kill(epoch, step, steps, loss):
        if (epoch, step) == (1, 3):
            raise KilledError

    saved = []
    with pytest.raises(KilledError):
        run(
            new_model(folder), folder, tmp_path, save_state_every=3, on_step=kill,
            on_save=lambda *done: saved.append(done), **CASES[case],
        )  # fmt: skip
    assert saved == [(0, 3), (1, 0), (1, 2)]
    first, model = [], new_model(folder)
    results = run(
        model, folder, tmp_path, resume=True, on_step=lambda *done: first.append(done[:3]),
        on_save=lambda *done: saved.append(done), **CASES[case],
    )  # fmt: skip
    assert first[0] == (1, 2, STEPS) and saved[3:] == [(1, 2), (2, 0), (3, 0)]
    assert same(model.state_dict(), whole[case][0]) and results == whole[case][2]


def test_saving_changes_nothing_and_counts_the_steps_of_the_run(folder, tmp_path, whole):
    model, saved = new_model(folder), []
    run(model, folder, tmp_path, save_state_every=5, on_save=lambda *done: saved.append(done), **CASES["augmented"])
    assert saved == [(1, 0), (1, 1), (2, 0), (2, 2), (3, 0)]
    assert same(model.state_dict(), whole["augmented"][0])


def test_a_run_may_be_stopped_while_it_is_measured(folder, tmp_path, whole):
    with pytest.raises(TrainingStoppedError, match=r"m\.resume\.safetensors: .* resume=True"):
        run(new_model(folder), folder, tmp_path, stop=STEPS + 1, **CASES["augmented"])
    stopped = read_state(tmp_path / "m.resume.safetensors")
    assert stopped.results == [] and stopped.partial.steps == STEPS and stopped.partial.random is None
    assert not (tmp_path / "m.jsonl").exists()
    model, steps = new_model(folder), []
    run(model, folder, tmp_path, resume=True, on_step=lambda *done: steps.append(done), **CASES["augmented"])
    assert len(steps) == 2 * STEPS and same(model.state_dict(), whole["augmented"][0])


def test_the_time_of_an_epoch_has_all_of_its_parts(folder, tmp_path):
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, tmp_path, stop=2)
    path = tmp_path / "m.resume.safetensors"
    with safe_open(path, "pt") as file:
        data = json.loads(file.metadata()["daukit_resume"])
    assert data["epoch"]["steps"] == 2 and 0 < data["epoch"]["seconds"] < 60
    data["epoch"]["seconds"] = 1000.0
    path.write_bytes(safetensors.torch.save(state(tmp_path), {"daukit_resume": json.dumps(data)}))
    run(new_model(folder), folder, tmp_path, resume=True)
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert 1000 < seconds[0] < 1060 and max(seconds[1:]) < 60


def test_a_state_between_epochs_is_one_that_an_older_daukit_reads(folder, tmp_path):
    run(new_model(folder), folder, tmp_path, epochs=1, save_state_every=1)
    with safe_open(tmp_path / "m.resume.safetensors", "pt") as file:
        data = json.loads(file.metadata()["daukit_resume"])
    assert "epoch_random" not in state(tmp_path)
    assert data["schema"] == 1 and set(data) == {"schema", "run", "results"}


def test_a_part_of_an_epoch_beyond_the_last_one_is_refused(folder, tmp_path):
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, tmp_path, stop=STEPS + 4, epochs=3)
    with pytest.raises(CheckpointError, match="1 epochs and 2 steps are done, and epochs asks for 1; ask for more"):
        run(new_model(folder), folder, tmp_path, resume=True, epochs=1)


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory):
    """A state in the second epoch."""
    place = tmp_path_factory.mktemp("stopped")
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, place, stop=STEPS + 4)
    return place / "m.resume.safetensors"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epoch", value) for value in (None, [], {}, {"steps": 1}, {"steps": 1, "loss": 1, "seconds": 1, "more": 1})),
        *(("steps", value) for value in (0, -1, 5, 1.0, True, "1", None)),
        *((key, value) for key in ("loss", "seconds") for value in (-1, "1", None, True)),
        ("schema", 1),
        ("schema", 3),
    ],
)
def test_a_part_of_an_epoch_that_is_damaged_is_one_kind_of_error(folder, tmp_path, stopped, key, value):
    with safe_open(stopped, "pt") as file:
        data = json.loads(file.metadata()["daukit_resume"])
    (data["epoch"] if key in data["epoch"] else data)[key] = value
    path = tmp_path / stopped.name
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(stopped), {"daukit_resume": json.dumps(data)}))
    with pytest.raises(CheckpointError, match=r"^\S*m\.resume\.safetensors: .*(damaged|version that wrote it)$"):
        run(new_model(folder), folder, tmp_path, resume=True)


@pytest.mark.parametrize(
    "change", [None, lambda r: r[:-1].clone(), torch.Tensor.float, lambda r: torch.full_like(r, 255)]
)
def test_a_source_of_chance_that_is_none_is_one_kind_of_error(folder, tmp_path, stopped, change):
    with safe_open(stopped, "pt") as file:
        text = file.metadata()["daukit_resume"]
    tensors = safetensors.torch.load_file(stopped)
    random_state = tensors.pop("epoch_random")
    if change is not None:
        tensors["epoch_random"] = change(random_state)
    (tmp_path / stopped.name).write_bytes(safetensors.torch.save(tensors, {"daukit_resume": text}))
    with pytest.raises(CheckpointError, match="damaged"):
        run(new_model(folder), folder, tmp_path, resume=True)


EPOCHS = 16
"""Of the command: enough that it is killed three times before it ends."""


@pytest.fixture
def interruptible():
    """Children hear Ctrl-C, also where a shell started the tests in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_a_command_that_is_killed_again_and_again_writes_the_same_file(folder, tmp_path):
    def command(output):
        words = ("train", "--data", folder, "-o", tmp_path / output, "--channels", "2,2,3", "--units", 1)
        more = ("--epochs", EPOCHS, "--batch-size", 6, "--mirror", "--shift", 1, "--save-state-every", 3, "--quiet")
        return [sys.executable, "-c", "from daukit.cli.main import main; main()", *map(str, (*words, *more))]

    subprocess.run(command("whole.safetensors"), check=True, timeout=600)
    chance, words, state = random.Random(1), command("m.safetensors"), tmp_path / "m.resume.safetensors"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        before = state.stat().st_mtime_ns if state.exists() else None
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(number)
        error = process.communicate(timeout=600)[1]
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number and error.count("\n") == 1 and "go on with: daukit tr" in error
        words = [*command("m.safetensors"), "--resume"]
    assert len(read_state(state).results) < EPOCHS
    subprocess.run(words, check=True, timeout=600)
    assert same(*(safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "m")))
