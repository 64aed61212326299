"""Shared by all tests."""

import functools
import gc
import json
import math
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
import typer

from daukit.cli import printing, progress, schema
from daukit.cli.main import main
from daukit.errors import speak_to_shell

# Tests work on tiny tensors: one thread is faster than several that wait for each other.
torch.set_num_threads(1)
# A program makes its commands once, the tests call it hundreds of times.
typer.main.get_command = functools.cache(typer.main.get_command)
# Files of tests need not survive a loss of power, and a disk takes milliseconds to make sure of each of thousands.
os.fsync = lambda descriptor: None

COUNTS = pytest.StashKey()


def installed(*packages):
    try:
        return bool([version(package) for package in packages])
    except PackageNotFoundError:
        return False


GPU_TOOLS = installed("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvdisasm", "nvidia-cuda-cuobjdump")
BROWSER = installed("playwright", "axe-playwright-python") and shutil.which("chromium") is not None
# What tests with a marker need, whether it is here, and what runs them.
NEEDS = {
    "cuda": ("an NVIDIA GPU", torch.cuda.is_available(), "make test-gpu"),
    "browser": ("chromium and the group page", BROWSER, "make test-page"),
    "gputools": ("the group gputools", GPU_TOOLS, "make gpu-static"),
}


def pytest_collection_modifyitems(config, items):
    """Take out the tests whose needs are not met here, and keep count, so that the summary can say so."""
    for marker, (_, here, _) in NEEDS.items():
        without = {item for item in items if not here and item.get_closest_marker(marker)}
        config.stash.setdefault(COUNTS, {})[marker] = len(without)
        config.hook.pytest_deselected(items=list(without))
        items[:] = [item for item in items if item not in without]


def pytest_collection_finish():
    """Spare the garbage collector from looking at modules and tests again and again: they stay."""
    gc.freeze()


def pytest_sessionfinish(session):
    """Hand the count over, where this is one of several processes (pytest -n)."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(COUNTS, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take it from a process that has ended; each of them looked at all tests."""
    node.config.stash[COUNTS] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
    for marker, (need, _, command) in NEEDS.items():
        if count := config.stash.get(COUNTS, {}).get(marker):
            terminalreporter.write_line(f"{count} tests need {need} and were left out: {command}")


@pytest.fixture(autouse=True)
def json_follows_its_schema(monkeypatch):
    """Hold whatever any test makes a command print with --json to the schema that is shipped for it."""
    to_json = printing.to_json

    def checked(command, data):
        import jsonschema  # not there where only the tests on a GPU run

        text = to_json(command, data)
        jsonschema.Draft202012Validator(json.loads(schema.read(command))).validate(json.loads(text))
        return text

    monkeypatch.setattr(printing, "to_json", checked)


@pytest.fixture
def narrow_passes():
    """The native kernels do displacements more than 16 taps apart in several passes, as others only those beyond 72."""
    from daukit.ops import library

    library.load().daukit_use_reach(16)
    yield
    library.load().daukit_use_reach(0)


@pytest.fixture
def daukit_command(monkeypatch, capsys):
    """Run the command line in this process, which spares importing torch anew; what a subprocess would return.

    Without lines of progress: whether there are some depends on the time that a command takes.
    """
    monkeypatch.setattr(progress, "PATIENCE", math.inf)
    monkeypatch.setattr(progress, "_lines", progress._Lines())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["daukit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        speak_to_shell(False)  # what this process calls next, it calls in Python
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, end.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def run(daukit_command, request):
    """Run the command that the test's module names as ``COMMAND``: its exit code, stdout and stderr."""

    def command(*arguments):
        done = daukit_command(request.module.COMMAND, *arguments)
        return done.returncode, done.stdout, done.stderr

    return command
