"""Writing: whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from daukit.errors import OutputError
from daukit.files import write_atomic


def test_it_writes_with_the_permissions_of_an_ordinary_file(tmp_path):
    ordinary, path = tmp_path / "ordinary", tmp_path / "new"
    ordinary.write_bytes(b"")
    write_atomic(path, b"data")
    assert path.read_bytes() == b"data"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "ordinary"]


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "new"
    monkeypatch.setattr(os, "fsync", lambda _: path.write_bytes(b"somebody else's"))
    with pytest.raises(OutputError, match="exists already"):
        write_atomic(path, b"data")
    assert path.read_bytes() == b"somebody else's"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(("name", "match"), [("no/such/folder/file", "no folder"), (".", "is a folder")])
def test_a_place_that_cannot_take_a_file_is_named(tmp_path, name, match):
    with pytest.raises(OutputError, match=match):
        write_atomic(tmp_path / name, b"data")


LIMITED = """
import resource, sys, pathlib
from daukit.errors import OutputError
from daukit.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(pathlib.Path(sys.argv[1]), bytes(5000), overwrite=True)
except OutputError as error:
    print(error)
"""


def test_a_file_size_limit_in_mid_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write 5,000 bytes" in done.stdout and "nothing was changed" in done.stdout
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_parts_are_written_one_after_the_other_or_not_at_all(tmp_path):
    write_atomic(tmp_path / "whole", iter([b"a", b"", b"bc"]))
    assert (tmp_path / "whole").read_bytes() == b"abc"

    def breaking():
        yield b"a"
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        write_atomic(tmp_path / "broken", breaking())
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]
