"""What the world does to files: thousands of broken ones, and a kill in the middle of a write."""

import random
import signal
import subprocess
import sys
import time

import pytest
from fuzz import attack, mutant, seeds

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


def test_a_thousand_broken_files_are_refused_or_read_for_what_they_are(tmp_path):
    assert 0 < attack(1000, 0, tmp_path) < 500


@pytest.mark.slow
def test_ten_thousand_more(tmp_path):
    attack(10_000, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["info", "prune", "plot-offsets", "erf", "rescale"])
def test_the_installed_commands_never_show_a_traceback(tmp_path, command, daukit_command):
    options = {"prune": ("--threshold", "0.1"), "rescale": ("--remove-pool", "pool3", "--size", "8")}.get(command, ())
    files, path, output = list(seeds()), tmp_path / "mutant.safetensors", tmp_path / "out.png"
    for number in range(100):
        dice = random.Random(f"{command} {number}")
        data = mutant(dice.choice(files), dice)
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
