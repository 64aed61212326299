"""How commands speak: tables, --json, --quiet; terminals, pipes and shells, through the installed program."""

import inspect
import json
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import torch

import daukit
from daukit.cli import schema
from daukit.cli.main import app

DAUKIT = Path(sys.executable).parent / "daukit"
COMMANDS = {command.name: command.callback for command in app.registered_commands}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    daukit.save(daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def in_terminal(columns, *arguments, term):
    """What the program shows on a terminal of so many columns, its stdout and stderr together."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {"PATH": os.environ["PATH"], "TERM": term}
    with subprocess.Popen([DAUKIT, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode().replace("\r\n", "\n")


def test_commands_that_print_json_have_a_schema_and_can_be_quiet():
    speaking = {name for name, callback in COMMANDS.items() if "json" in inspect.signature(callback).parameters}
    assert speaking == set(get_args(schema.Command)) == set(COMMANDS) - {"schema", "completion"}
    assert all("quiet" in inspect.signature(COMMANDS[name]).parameters for name in speaking)


@pytest.mark.parametrize("command", get_args(schema.Command))
def test_a_schema_is_printed_and_is_one(command, daukit_command):
    done = daukit_command("schema", command)
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"] == f"daukit {command} --json" and done.stderr == ""


def test_a_schema_refuses_what_it_does_not_describe(daukit_command):
    of_models = jsonschema.Draft202012Validator(json.loads(daukit_command("schema", "models").stdout))
    entry = {"name": "a", "units": 1, "parameters": 3, "about": "b"}
    assert of_models.is_valid({"models": [entry]})
    for spoiled in ({**entry, "units": -1}, {**entry, "more": 1}, {"name": "a"}):
        assert not of_models.is_valid({"models": [spoiled]})


def test_quiet_prints_the_file_written_and_nothing_else(model, tmp_path, daukit_command):
    output = tmp_path / "pruned.safetensors"
    done = daukit_command("prune", model, "--threshold", "0.3", "-o", output, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{output}\n", "")
    figure, numbers = tmp_path / "offsets.svg", tmp_path / "offsets.csv"
    done = daukit_command("plot-offsets", model, "-o", figure, "--csv", numbers, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{figure}\n{numbers}\n", "")


def test_quiet_prints_what_was_asked_where_nothing_is_written(model, daukit_command):
    units = 4 * 2 + 6 * 4 * 2 + 8 * 6 * 2
    assert daukit_command("info", model, "-q").stdout == f"{units}\n"
    assert daukit_command("prune", model, "--threshold", "0", "--dry-run", "-q").stdout == f"{units}\n"
    assert daukit_command("models", "-q").stdout.split() == list(daukit.models.MODELS)
    swept = daukit_command("prune", model, "--thresholds", "0,1", "-q").stdout.splitlines()
    assert swept[0].split("\t") == ["0", str(units), "0.0"] and len(swept) == 2
    assert ["daukit", daukit.__version__] in [
        line.split("\t") for line in daukit_command("checks", "-q").stdout.splitlines()
    ]


def test_quiet_leaves_errors_alone(tmp_path, daukit_command):
    done = daukit_command("info", tmp_path / "nothing.safetensors", "-q")
    assert done.returncode == 1 and done.stdout == "" and "no such file" in done.stderr


def test_json_and_quiet_are_one_too_many(model, daukit_command):
    done = daukit_command("info", model, "--json", "--quiet")
    assert done.returncode == 2 and done.stdout == "" and "give one" in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 70, 160])
def test_a_table_fits_the_terminal(model, columns):
    shown = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(columns, "info", model, term="xterm-256color"))
    results = shown[: shown.index("152 units")].splitlines()[1:]  # the title may wrap, as any line
    assert all(len(line) <= columns for line in results)
    words = (
        "channels",
        "units",
        "per filter",
        "parameters",
        "sigma",
        "axis limit",
        "axis max",
        "max |mu|",
        "at limit",
        "1 -> 4",
        "6 -> 8",
    )
    assert all(word in "\n".join(results) for word in words)
    assert ("┃" in shown) == (columns == 160)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 200])
def test_a_dumb_terminal_gets_whole_lines_and_no_codes(model, columns):
    shown = in_terminal(columns, "info", model, term="dumb")
    header = next(line for line in shown.splitlines() if "layer" in line)
    assert all(word in header for word in ("channels", "units", "per filter", "parameters", "sigma", "at limit"))
    assert "\x1b" not in shown


@pytest.mark.slow
def test_a_reader_that_leaves_early_sees_no_traceback(model):
    with subprocess.Popen(
        [DAUKIT, "info", model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("info", "MODEL", "-q"), 0, marks=pytest.mark.slow),  # as the table in a terminal
        (("info", "nothing.safetensors"), 1),
        (("info", "--no-such-option"), 2),
        (("prune", "MODEL"), 2),
    ],
)
def test_the_program_ends_with_0_1_or_2(model, arguments, code):
    words = [str(model) if word == "MODEL" else word for word in arguments]
    done = subprocess.run([DAUKIT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_module_is_the_program():
    here, there = (
        subprocess.run([*program, "info", "nothing.safetensors"], capture_output=True, text=True, check=False)
        for program in ([DAUKIT], [sys.executable, "-m", "daukit"])
    )
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)
    assert here.returncode == 1


FAULTS = """
import resource, sys
from daukit.cli.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
bytearray(1 << 27)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(1 << 27)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_kept_memory_is_not_asked_of_the_system_again():
    faults = {
        way: int(subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True).stdout)
        for way in ("keep", "return")
    }
    # Pages are 4 KB, or 2 MB where the system hands out huge ones.
    assert faults["keep"] < (1 << 27) // (1 << 21) <= faults["return"]


def complete(line, **environment):
    """What bash would offer after ``line``."""
    words = line.split(" ")
    asked = {"_DAUKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [DAUKIT], env={**os.environ, **asked, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.slow
def test_the_shell_completes_commands_options_and_layers(model, tmp_path):
    assert complete("daukit plot") == ["plot-offsets"]
    assert complete("daukit prune --rel") == ["--relative-to"]
    assert complete("daukit prune --relative-to n") == ["network"]
    for command in ("plot-offsets", "erf"):
        assert complete(f"daukit {command} {model} --layer conv") == ["conv1", "conv2", "conv3"]
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint")
    assert complete(f"daukit plot-offsets {tmp_path / 'broken.safetensors'} --layer ") == []


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _daukit_completion daukit"),
        ("zsh", "#compdef daukit"),
        ("fish", "complete --command daukit"),
    ],
)
def test_a_completion_script_is_printed(shell, line):
    done = subprocess.run([DAUKIT, "completion", shell], capture_output=True, text=True, check=True)
    assert line in done.stdout and "_DAUKIT_COMPLETE=complete_" + shell in done.stdout


def test_bash_takes_the_completion_script():
    run = f'eval "$({DAUKIT} completion bash)" && complete -p daukit'
    done = subprocess.run(["bash", "--norc", "-c", run], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o default -F _daukit_completion daukit\n" and done.stderr == ""


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_can_be_read_on_80_columns(command, daukit_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = daukit_command(*([] if command is None else [command]), "--help").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    if command is None:
        listed = lines[lines.index("Commands:") + 1 :]
        assert [line.split()[0] for line in listed] == list(COMMANDS)
        assert all(line.endswith(".") and not line.endswith("..") for line in listed)
