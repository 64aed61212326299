"""Temporary files and folders that killed writers leave, and folders that appear whole."""

import os
import signal
import subprocess
import sys

import pytest
from folders import names

from daukit.errors import OutputError
from daukit.files import new_folder, write_atomic
from daukit.files.temporary import is_nobodys

KILLED = """
import os, pathlib, signal, sys
from daukit.files import write_atomic
if sys.argv[2] == "named":
    del os.O_TMPFILE
os.fsync = lambda _: os.kill(os.getpid(), getattr(signal, sys.argv[3]))
write_atomic(pathlib.Path(sys.argv[1]), bytes(100_000), overwrite=True)
"""


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("system", ["unnamed", "named"])
def test_what_a_killed_writer_leaves_is_swept_once_it_is_old(tmp_path, system, kind):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), system, kind], capture_output=True)
    assert done.returncode == -getattr(signal, kind), done.stderr
    left = [name for name in names(tmp_path) if name != "model"]
    assert path.read_bytes() == b"old" and len(left) == (system == "named" and kind == "SIGKILL")
    write_atomic(path, b"young ones stay", overwrite=True)
    assert names(tmp_path) == [*left, "model"]
    for name in left:
        os.utime(tmp_path / name, (0, 0))
    write_atomic(path, b"new", overwrite=True)
    assert names(tmp_path) == ["model"]


FOLDER_KILLED = """
import os, pathlib, signal, sys
from daukit.files import new_folder, write_atomic
with new_folder(sys.argv[1]) as folder:
    write_atomic(folder / "file", b"data")
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_what_a_killed_writer_leaves_of_a_folder_is_swept_once_it_is_old(tmp_path, kind):
    path = tmp_path / "model"
    done = subprocess.run([sys.executable, "-c", FOLDER_KILLED, str(path), kind], capture_output=True)
    assert done.returncode == -getattr(signal, kind), done.stderr
    left = names(tmp_path)
    assert len(left) == (kind == "SIGKILL") and not path.exists()
    for name in left:
        os.utime(tmp_path / name, (0, 0))
    with new_folder(path) as folder:
        write_atomic(folder / "file", b"data")
    assert names(tmp_path) == ["model"] and names(path) == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    for error, match in ((KeyError("gone"), "gone"), (OutputError("FOLDER/x: full"), f"{path}/x: full")):
        with pytest.raises(type(error), match=match), new_folder(path) as folder:
            (folder / "file").touch()
            raise type(error)(str(error.args[0]).replace("FOLDER", str(folder)))
        assert names(tmp_path) == []
    with new_folder(path) as folder:
        (folder / "file").touch()
        assert not path.exists()
    assert names(path.parent) == [path.name] and names(path) == ["file"]
    with pytest.raises(OutputError, match="is there already; name a folder to be made"), new_folder(path):
        pass


def test_only_old_temporary_files_of_our_own_that_nobody_holds_are_swept(tmp_path):
    ours = [".daukit-0123abcd.tmp", ".model.ab_1zz9q", ".model.x8f3k2_a"]
    theirs = [
        ".model.settings",
        ".model.ab_1zz9qq",
        ".other.ab_1zz9q",
        ".daukit-xyz.tmp",
        "model.ab_1zz9q",
        "model.txt",
    ]
    for name in (*ours, *theirs, ".model.read_me1", ".daukit-ffffffff.tmp"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(0o600)
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".model.read_me1").chmod(0o644)  # Python's temporary files are their user's alone
    (tmp_path / ".daukit-00000000.tmp" / "whole").mkdir(parents=True)
    os.utime(tmp_path / ".daukit-00000000.tmp", (0, 0))
    with (tmp_path / ".daukit-ffffffff.tmp").open() as held:
        assert is_nobodys(held.fileno())
        write_atomic(tmp_path / "model", b"new")
    assert names(tmp_path) == sorted([*theirs, ".model.read_me1", ".daukit-ffffffff.tmp", "model"])
