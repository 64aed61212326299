"""What the world does to files: thousands of broken ones, and a kill in the middle of a write."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from fuzz import FORMATS, Bench, attack, daukit_files
from own_mutators import safetensors

WRITER = """
import sys
from pathlib import Path
from daukit.files import write_atomic
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_atomic(path, bytes([number % 251]) * 3_000_000, overwrite=True)
    print(flush=True)
"""


# Of 20,000: what daukit writes itself has most structure to break.
COUNTS = {"daukit": 7000, "state": 1500, "pth": 3500, "npz": 2500, "caffe": 2500, "tensorflow": 2000, "idx": 1000}


@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_are_refused_or_read_for_what_they_are(name, tmp_path):
    bench = Bench(name, tmp_path)
    verdicts = Counter(bench.judge(0, number) for number in range(60))
    assert set(verdicts) == {"refused", "accepted"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_twenty_thousand_more(name):
    assert sum(COUNTS.values()) == 20_000
    result = attack(name, COUNTS[name], 1)
    assert not result.failures
    assert min(result.counts["refused"], result.counts["accepted"]) > COUNTS[name] / 50


@pytest.mark.slow
@pytest.mark.parametrize("command", ["info", "prune", "plot-offsets", "erf", "rescale"])
def test_the_installed_commands_never_show_a_traceback(tmp_path, command, daukit_command):
    options = {"prune": ("--threshold", "0.1"), "rescale": ("--remove-pool", "pool3", "--size", "8")}.get(command, ())
    files, path = list(daukit_files()), tmp_path / "mutant.safetensors"
    output = tmp_path / ("out.png" if command in ("plot-offsets", "erf") else "out.safetensors")
    # Few: the readers see twenty thousand above; here only the way of their errors to the terminal is left to look at.
    for number in range(30):
        dice = random.Random(f"{command} {number}")
        data = safetensors(dice.choice(files), dice)
        path.write_bytes(data)
        written = () if command == "info" else ("-o", output, "--overwrite")
        done = daukit_command(command, path, *options, *written)
        assert done.returncode in (0, 1), (number, done.stderr)
        assert "Traceback" not in done.stderr, (number, done.stderr)
        if done.returncode:
            assert done.stderr.strip().count("\n") == 0 and str(path) in done.stderr, (number, done.stderr)
        assert path.read_bytes() == data


@pytest.mark.slow
def test_a_killed_write_leaves_the_old_file_or_the_new_one(tmp_path):
    """200 SIGKILLs at random moments: never a torn file, and nothing of the temporary one under its name."""
    path, dice = tmp_path / "file", random.Random(0)
    for _ in range(200):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()  # it writes
        time.sleep(dice.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        data = path.read_bytes()
        assert len(data) == 3_000_000 and len(set(data)) == 1
