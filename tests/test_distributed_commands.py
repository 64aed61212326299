"""Commands in several processes: they print and write what one process does, once, and end together."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import ranks as work
import torch
from pictures import class_folders
from ranks import TORCHRUN

from daukit.training import read_state

pytestmark = pytest.mark.slow


def daukit(number, place, *arguments):
    """Start a command in several processes."""
    return subprocess.Popen(
        [*TORCHRUN, str(number), "-m", "daukit", *map(str, arguments)], cwd=place, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process, within=30):
    """The exit code, the results, and the messages of all processes but torchrun, which must come in time."""
    start = time.monotonic()
    out, err = process.communicate(timeout=100)
    assert time.monotonic() - start < within
    assert "daukit/" not in "".join(re.findall(r'File "[^"]*"', err))  # no traceback of ours
    return process.returncode, out, [line for line in err.splitlines() if re.match("error:|Error:|wrote", line)]


NETWORK = ("--channels", "2,2,3", "--units", 1)


def test_what_all_processes_find_wrong_is_said_once(tmp_path):
    work.toy(tmp_path)
    train = ("train", "--data", "toy", "-o", "m.safetensors")
    for arguments, message in (
        (("train", "--data", "nothing", "-o", "m.safetensors"), "error: nothing: there is no such folder"),
        ((*train, "--epochs", "x"), "Error: Invalid value for '--epochs': "),
        ((*train, "--batch-size", 1), "Error: Invalid value for --batch-size: batch_size (1) is divided among 2"),
        (("prune", "m.safetensors", "-o", "n.safetensors"), "Error: Invalid value: prune works in one process, and"),
    ):
        status, out, messages = ended(daukit(2, tmp_path, *arguments), within=100)
        assert (status, out) == (1, "")  # torchrun's own code
        assert len(messages) == 1 and messages[0].startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_commands_print_and_write_once_what_one_process_does(tmp_path, daukit_command, monkeypatch):
    work.toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    train = ("train", "--data", "toy", "--epochs", 2, "--batch-size", 8, "--best", *NETWORK, "--sync-batch-norm")
    status, out, messages = ended(daukit(3, tmp_path, *train, "-o", "m.safetensors", "--json"), within=100)
    told = json.loads(out)
    assert status == 0 and told["output"] == "m.safetensors" and told["epochs"] == 2
    done = daukit_command(*train, "-o", "alone.safetensors", "--json")
    alone = done.stderr.replace("alone", "m").splitlines()
    assert [m for m in messages if "wrote" in m] == [m for m in alone if "wrote" in m]
    assert Path("m.best.safetensors").exists()
    assert told["loss"] == pytest.approx(
        json.loads(Path("alone.jsonl").read_text().splitlines()[-1])["test_loss"], 1e-3
    )
    measure = ("evaluate", "m.safetensors", "--data", "toy", "--split", "train", "--json")
    fields = (
        "erf",
        "m.safetensors",
        "--layer",
        "conv2",
        "--images",
        6,
        "--size",
        16,
        "--batch-size",
        2,
        "--npz",
        "m.npz",
        "--json",
    )
    for command in (measure, fields):
        status, out, messages = ended(daukit(2, tmp_path, *command), within=100)
        if "--npz" in command:
            archive = {name: torch.from_numpy(array) for name, array in np.load("m.npz").items()}
            command = (*command, "--overwrite")
        done = daukit_command(*command)
        assert (status, messages) == (0, [line for line in done.stderr.splitlines() if line.startswith("wrote")])
        assert_near(json.loads(out), json.loads(done.stdout))
    for name, array in np.load("m.npz").items():
        torch.testing.assert_close(archive[name], torch.from_numpy(array), rtol=1e-9, atol=1e-12)


def assert_near(one, other):
    """The same results, numbers to a billionth."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_near(mine, theirs)
    else:
        assert one == (pytest.approx(other, rel=1e-9) if isinstance(other, float) else other)


def test_a_picture_that_one_process_cannot_read_ends_all(tmp_path):
    folder = class_folders(tmp_path / "data")
    broken = folder / "train" / "apple" / "train_1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    command = ("train", "--data", "data", "-o", "m.safetensors", "--batch-size", 9, "--model-arg", "input_size=[16,16]")
    status, out, messages = ended(daukit(3, tmp_path, *command, *NETWORK), within=100)
    assert (status, out) == (1, "")
    (message,) = messages
    assert message.startswith("error: data/train/apple/train_1.png: cannot be read as a picture")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def endless(place, number=2):
    """A training that does not end by itself, once it has done an epoch; and its processes."""
    work.toy(place)
    process = daukit(number, place, "train", "--data", "toy", "-o", "m.safetensors", "--epochs", 10**6,
                     "--batch-size", 8, "--save-state-every", 3, *NETWORK)  # fmt: skip
    while not (place / "m.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.1)
    assert len(children_of(process)) == number
    return process, children_of(process)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_all(killed, tmp_path):
    process, children = endless(tmp_path)
    os.kill(children[killed], signal.SIGKILL)
    status, out, messages = ended(process)
    assert (status, out) == (1, "")
    assert [m for m in messages if "error" in m] == [
        f"error: process {2 - killed} of 2 lost the others: one of them was killed, or cannot be reached; "
        "start all of them again"
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"toy", "m.jsonl", "m.resume.safetensors"}
    assert read_state(tmp_path / "m.resume.safetensors").results


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_to_torchrun_or_all_stops_all_at_one_step(number, name, tmp_path):
    process, children = endless(tmp_path)
    for each in [process.pid, *(children if number == signal.SIGINT else ())]:  # as a terminal does
        os.kill(each, number)
    _, out, messages = ended(process)
    (message,) = (m for m in messages if "error" in m)
    assert re.fullmatch(
        rf"error: stopped by {name}; .* safe in m\.resume\.safetensors; "
        r"go on with: torchrun \(as before\) -m daukit train .* --resume",
        message,
    )
    state = read_state(tmp_path / "m.resume.safetensors")
    assert f"{state.partial.steps} step" in message if state.partial else f"{len(state.results)} are safe" in message
    assert out == "" and not (tmp_path / "m.safetensors").exists()


def test_ctrl_c_ends_a_measurement_with_one_message(tmp_path):
    process = daukit(2, tmp_path, "erf", "--model", "shallow_dau", "--images", 10**4, "--size", 32, "--batch-size", 1)
    for line in process.stderr:  # until there is progress
        if "%" in line:
            break
    for each in (process.pid, *children_of(process)):
        os.kill(each, signal.SIGINT)
    status, out, messages = ended(process)
    assert (status, out) == (1, "")
    assert messages == [
        "error: stopped by SIGINT: another process of this work has ended, or somebody has asked for it"
    ]


def children_of(process):
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(child) for child in text.split()]
