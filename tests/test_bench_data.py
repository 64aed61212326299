"""``daukit bench --data``: each task does the work that it says, and the rates follow from the times."""

import itertools
import json

import pytest
from idx import toy_folder
from pictures import class_folders

from daukit.datasets import imagenet
from daukit.workflows import bench_data
from daukit.workflows.bench_data import STEPS, time_data

SMALL = ("--model-arg", "channels=2,2,2", "--model-arg", "units=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


def test_rates_are_images_over_times(folder, daukit_command):
    done = daukit_command("bench", "--data", folder, "--batch-size", 8, "--rounds", 3, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["batch_size"] == 8 and result["model"] == "shallow_dau"
    assert set(result["times"]) == {"reading", "reading and changes", "step", "bare loop", "daukit train"}
    for name, rate in result["images_per_second"].items():
        assert rate == pytest.approx(8e3 / result["times"][name]["median"])


def test_a_step_lasts_from_the_end_of_one_to_the_end_of_the_next(folder, monkeypatch):
    ticks = itertools.count(step=2.0)
    monkeypatch.setattr(bench_data.time, "perf_counter", lambda: next(ticks))
    config = {"channels": [2, 2, 2], "units": 1, "input_size": [16, 16]}
    result = time_data(folder, config=config, batch_size=8, rounds=3)
    # The clock is looked at once a step in a bare loop. (daukit's loop looks at it more often.)
    assert result.times["bare loop"].median == result.times["step"].median == 2000
    assert result.times["reading and changes"].median == pytest.approx(2000 / STEPS)


def test_every_task_reads_what_it_says(tmp_path, monkeypatch):
    class_folders(tmp_path)
    read, count = imagenet.read_picture, []
    monkeypatch.setattr(imagenet, "read_picture", lambda *words: (count.append(1), read(*words))[1])
    told = {}

    def once(tasks, rounds, on_progress):
        for name, task in tasks.items():
            count.clear()
            task()
            told[name] = len(count)
        return {name: [1.0] for name in tasks}

    monkeypatch.setattr(bench_data, "_interleaved", once)
    config = {"channels": [2, 2, 2], "units": 1, "input_size": [16, 16]}
    time_data(tmp_path, config=config, batch_size=2)
    images = 8  # of 9, as steps are of equal size
    assert told["reading"] == 2 and told["step"] == 0
    assert told["reading and changes"] == told["bare loop"] == images
    assert told["daukit train"] == images + 4  # it looks three times whether images fit, and measures on one


@pytest.mark.parametrize("words", [("--shape", "1,2,3,5"), ("--no-networks",), ("--sparse",), ("--quick",)])
def test_what_data_has_no_use_for_is_refused(folder, daukit_command, words):
    done = daukit_command("bench", "--data", folder, *words)
    assert done.returncode == 2 and words[0].removeprefix("--no-") in done.stderr


@pytest.mark.parametrize("words", [("--batch-size", "3"), ("--model", "shallow"), ("--crop-size", "8,8")])
def test_what_only_data_needs_is_refused_without(daukit_command, words):
    done = daukit_command("bench", *words)
    assert done.returncode == 2 and "only --data needs it" in done.stderr


def test_crops_of_a_classifiers_images_are_refused(folder, daukit_command):
    done = daukit_command("bench", "--data", folder, "--crop-size", "8,8", *SMALL)
    assert done.returncode == 2 and "takes no crop" in done.stderr


def test_too_few_images_are_an_error(folder, daukit_command):
    done = daukit_command("bench", "--data", folder, "--batch-size", 96, *SMALL)
    assert done.returncode == 1 and "too few for two batches of 96" in done.stderr
