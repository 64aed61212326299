"""Shared by all tests."""

import subprocess
import sys

import pytest
import torch

from daukit.cli.main import main

# Tests work on tiny tensors: one thread is faster than several that wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def daukit_command(monkeypatch, capsys):
    """Run the command line in this process, which spares importing torch anew; what a subprocess would return."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["daukit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
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
