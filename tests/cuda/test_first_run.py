"""The first run on a GPU machine: `make test-gpu` with a stub in place of the GPU."""

import os
import re
import subprocess
import sys

import pytest
from emulator.build import NEEDS_COMPILER
from pages import ROOT
from stub_gpu import NEEDS_A_GPU


@pytest.mark.slow
@NEEDS_COMPILER
def test_the_tests_of_a_gpu_start_and_pass_where_only_torch_pytest_and_daukit_are_installed():
    line = next(line for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if "test_gpu.py" in line)
    arguments = line[line.index("-m pytest") :].split()
    path = f"{ROOT}/tests:{ROOT}/tests/cuda"
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # those of the packages that are not to be there
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **plugins}
    command = [sys.executable, *arguments, "-p", "stub_gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    summary = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"\d+ passed, {len(NEEDS_A_GPU)} deselected.*", summary), done.stdout[-8000:] + done.stderr
