"""What reaches a terminal, a full disk or nobody: names as they are, and nothing that is obeyed instead of read."""

import errno
import io
import json
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
import safetensors.torch
import torch

import daukit
from daukit.checkpoint import from_model
from daukit.cli import options, printing, progress, streams
from daukit.errors import CheckpointError

DAUKIT = Path(sys.executable).parent / "daukit"
HOSTILE = "\x1b[31mX\u202e\n\x9b$a$"


def saved(path, layer="conv1", **more):
    """A small network's file, its first layer renamed, and more in its header."""
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2)
    header = json.loads(from_model(model).header.to_json()) | more
    header["layers"][0]["name"] = layer
    if layer != "conv1":  # daukit's own network has no such layer
        header["architecture"] = {"imported": "caffe"}
    tensors = {name.replace("conv1.", f"{layer}."): tensor for name, tensor in model.state_dict().items()}
    path.write_bytes(safetensors.torch.save(tensors, {"daukit": json.dumps(header)}))
    return path


@pytest.fixture
def hostile(tmp_path):
    entry = {"operation": f"train{HOSTILE}", "arguments": {"a": HOSTILE}, "date": "\x07", "version": "\u2066"}
    return saved(tmp_path / "m\x1b[2J.safetensors", layer=HOSTILE, history=[entry])


def obeyed(text):
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "FILE"),
        ("info", "FILE\x1b[31m"),
        ("info", "FILE", "more\x1b[31m"),
        ("info", "--model", "shallow\x1b[31m"),
        ("info\x1b[31m",),
        ("plot-offsets", "FILE", "--dry-run"),
        ("plot-offsets", "FILE", "--dry-run", "--layer", "no"),
        ("prune", "FILE", "--threshold", "0.3", "--dry-run"),
        ("prune", "FILE", "--thresholds", "0,0.3", "--quiet"),
        ("prune", "FILE", "--threshold", "0.3", "-o", "FILE"),
    ],
)
def test_nothing_that_a_terminal_obeys_reaches_it(hostile, arguments, daukit_command):
    done = daukit_command(*(word.replace("FILE", str(hostile)) for word in arguments))
    assert done.stdout + done.stderr and not obeyed(done.stdout + done.stderr)


def test_progress_and_warnings_are_made_visible_too(capsys, monkeypatch):
    printing.speak(json=False, quiet=False)
    printing.note_warning(UserWarning(HOSTILE), UserWarning, "file", 1)
    clock = iter(range(0, 100, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "_lines", progress._Lines())
    with progress.progress_bar(1) as update:
        update(0.5, HOSTILE)
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "\\x1b[31mX" in said and not obeyed(said)


@pytest.mark.parametrize(
    "name",
    [
        "run:100:x:ok:.safetensors",
        "[red]m[b].safetensors",
        "C:\\runs\\[1]\\m.safetensors",
        "[bold] $x$",
        "層 é.safetensors",
    ],
)
def test_names_are_shown_as_they_are(tmp_path, monkeypatch, daukit_command, name):
    monkeypatch.chdir(tmp_path)
    assert f"{name}: there is no such file" in daukit_command("info", name).stderr
    saved(Path(name))
    assert daukit_command("info", name).stdout.startswith(f"{name}: shallow_dau(")
    written = daukit_command("prune", name, "--threshold", "0.1", "-o", f"p{name}")
    assert f"wrote p{name}\n" in written.stderr and Path(f"p{name}").exists()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "é → ".encode() + b"\xff"), ("latin-1", b"\xe9 \\u2192 \xff"), ("ascii", b"\\xe9 \\u2192 \xff")],
)
def test_what_a_console_cannot_show_is_escaped_and_paths_keep_their_bytes(monkeypatch, encoding, expected):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    streams.prepare()
    streams.write_results("é → " + os.fsdecode(b"\xff"))
    streams.finish()
    assert raw.getvalue() == expected


def test_a_terminal_is_spared_what_a_script_gets_to_the_byte(monkeypatch):
    path = os.fsdecode(b"a\x1b\xff")
    assert streams.as_answer(path) == path
    monkeypatch.setattr(streams, "is_terminal", lambda: True)
    assert streams.as_answer(path) == r"a\x1b\xff"


def shell(command, folder):
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize("arguments", ["schema info", "--version", "--help", "completion bash"])
def test_a_full_stdout_is_one_line(tmp_path, arguments):
    code, _, said = shell(f"{DAUKIT} {arguments} > /dev/full", tmp_path)
    assert code == 1 and said.count("\n") == 1 and "No space left on device" in said


def test_closed_streams_keep_nothing_from_being_done(tmp_path):
    assert shell(f"{DAUKIT} schema info >&-", tmp_path) == (0, "", "")
    assert shell(f"{DAUKIT} prune nothing --keep-units 1 -o x 2>&-", tmp_path)[0] == 1


OPENED = """
from daukit.cli import streams
streams.prepare()
with open("data", "wb") as file:
    assert file.fileno() > 2, file.fileno()
    streams.write_results("lost")
    streams.write_message("lost")
"""


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    assert shell(f"{sys.executable} -c '{OPENED}' <&- >&- 2>&-", tmp_path) == (0, "", "")
    assert (tmp_path / "data").read_bytes() == b""


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("mode", [(), ("--json",), ("--quiet",)])
def test_results_that_cannot_be_written_are_one_line(monkeypatch, daukit_command, mode):
    monkeypatch.setattr(sys, "stdout", Full())
    done = daukit_command("models", *mode)
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout: the results cannot be written: No space left on device")
    assert done.stderr.count("\n") == 1


def test_talk_that_nobody_can_hear_does_not_matter(tmp_path, monkeypatch, daukit_command):
    monkeypatch.setattr(sys, "stderr", Full())
    path = saved(tmp_path / "m.safetensors")
    output = tmp_path / "p.safetensors"
    assert daukit_command("prune", path, "--threshold", "0.1", "-o", output).returncode == 0 and output.exists()


def raising(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG, errno.EMFILE, errno.ENOSPC])
def test_what_the_system_refuses_is_one_line_with_the_path(monkeypatch, daukit_command, code):
    monkeypatch.setattr(options, "read_source", raising(OSError(code, os.strerror(code), "some/path")))
    done = daukit_command("info", "x")
    assert (done.returncode, done.stderr) == (1, f"error: some/path: {os.strerror(code)}\n")


def test_a_programming_error_shows_as_one(monkeypatch, daukit_command):
    monkeypatch.setattr(options, "read_source", raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        daukit_command("info", "x")


def test_warnings_of_libraries_are_talk(monkeypatch, daukit_command):
    def warn(*_):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("first\nsecond", stacklevel=1)
        raise CheckpointError("done")

    monkeypatch.setattr(options, "read_source", warn)
    assert daukit_command("info", "x").stderr == "warning: first second\nerror: done\n"
    assert daukit_command("info", "x", "--quiet").stderr == "error: done\n"


def test_progress_where_nobody_watches_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_lines", progress._Lines())
    printing.speak(json=False, quiet=False)
    for part in range(2):  # two bars in turn are one piece of work
        with progress.progress_bar(100) as update:
            for i in range(50):
                now[0] += 0.1
                update(50 * part + i, f"step {50 * part + i}")
    assert capsys.readouterr().err.splitlines() == ["19% step 19, 0:00:08 left"]
    now[0] = 12.05
    with progress.progress_bar(4) as update:
        update(1, "late")
        now[0] += 9.9
        update(2, "too soon")
        printing.speak(json=False, quiet=True)
    assert capsys.readouterr().err.splitlines() == ["25% late"]
    with progress.progress_bar(1) as update:
        now[0] += 100
        update(1, "quiet")
    assert capsys.readouterr().err == ""


def test_a_night_of_work_says_some_hundred_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_lines", progress._Lines())
    printing.speak(json=False, quiet=False)
    with progress.progress_bar(10 * 3600) as update:
        for second in range(10 * 3600):
            now[0] = float(second)
            update(second, "")
    assert 50 < len(capsys.readouterr().err.splitlines()) < 150


def test_a_figure_of_hostile_names_is_a_picture(hostile, tmp_path, daukit_command):
    for kind, figure in (("plot-offsets", tmp_path / "o.svg"), ("prune", tmp_path / "p.svg")):
        more = ("-o",) if kind == "plot-offsets" else ("--thresholds", "0,0.5", "--figure")
        done = daukit_command(kind, hostile, *more, figure)
        assert done.returncode == 0, done.stderr
        assert not obeyed(figure.read_text()) and ElementTree.parse(figure).getroot().tag.endswith("svg")


def test_completion_runs_nothing_of_the_current_folder(tmp_path):
    for name in ("typer", "os", "io", "json", "daukit"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w'); raise SystemExit")
    code, script, _ = shell(f"{DAUKIT} completion bash", tmp_path)
    assert code == 0 and "_DAUKIT_COMPLETE" in script and not (tmp_path / "RAN").exists()


def test_a_shell_is_offered_no_name_that_it_could_run(tmp_path):
    from daukit.cli.completion import _layer_names

    for name in ("a b", "$(touch RAN)", "\\$(touch RAN)", '"', "a;b", "`x`", "\x1b"):
        assert _layer_names(saved(tmp_path / "m", layer=name)) == ["conv2", "conv3"]
    assert _layer_names(saved(tmp_path / "m", layer="stage1.conv-1")) == ["stage1.conv-1", "conv2", "conv3"]


def test_training_of_a_file_without_history_is_unknown_and_said_so_once(tmp_path, daukit_command):
    path = saved(tmp_path / "m.safetensors")
    assert daukit_command("info", path).stdout.count("training unknown") == 1
    trained = {"operation": "train", "arguments": {}, "date": "d", "version": "v"}
    path = saved(tmp_path / "t.safetensors", history=[trained])
    assert "unknown" not in daukit_command("info", path).stdout
