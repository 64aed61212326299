"""Shared by all tests."""

import json
import subprocess
import sys

import jsonschema
import pytest
import torch

from daukit.cli import report, schema
from daukit.cli.main import main

# Tests work on tiny tensors: one thread is faster than several that wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def json_follows_its_schema(monkeypatch):
    """Hold whatever any test makes a command print with --json to the schema that is shipped for it."""
    to_json = report.to_json

    def checked(command, data):
        text = to_json(command, data)
        jsonschema.Draft202012Validator(json.loads(schema.read(command))).validate(json.loads(text))
        return text

    monkeypatch.setattr(report, "to_json", checked)


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
