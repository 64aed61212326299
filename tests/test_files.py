"""Writing: whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from folders import names

from daukit.errors import CheckpointError, OutputError
from daukit.files import check_distinct, check_output, write_atomic


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


@pytest.mark.parametrize(
    ("name", "match"),
    [("file/in/it", r"file is not a folder"), (".", "is a folder"), ("a" * 300, "File name too long")],
)
def test_a_place_that_cannot_take_a_file_is_named(tmp_path, name, match):
    (tmp_path / "file").touch()
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


def ways(folder, path):
    """Other names of a file: relative, a link, a hard link, behind a linked folder."""
    link, hard, linked = folder / "link", folder / "hard", folder / "linked"
    link.symlink_to(path)
    hard.hardlink_to(path)
    linked.symlink_to(path.parent, target_is_directory=True)
    return {"same": path, "text": str(path), "dots": path.parent / "x" / ".." / path.name, "link": link, "hard": hard,
            "folder": linked / path.name}  # fmt: skip


@pytest.mark.parametrize("way", ["same", "text", "dots", "link", "hard", "folder"])
@pytest.mark.parametrize("within", [False, True])
def test_an_output_is_never_one_of_the_sources_by_whatever_name(tmp_path, way, within):
    (tmp_path / "in" / "x").mkdir(parents=True)
    source = tmp_path / "in" / "model"
    source.write_bytes(b"trained")
    output = ways(tmp_path, source)[way]
    sources = [tmp_path / "other", source.parent if within and way not in ("link", "hard") else source]
    with pytest.raises(OutputError, match="is read here"):
        check_output(output, overwrite=True, sources=sources)
    check_output(tmp_path / "in" / "new", overwrite=False, sources=sources)
    check_output(output, overwrite=True, sources=[tmp_path / "in" / "x"])


@pytest.mark.parametrize("way", ["same", "text", "dots", "link", "hard", "folder"])
def test_two_outputs_are_never_one_file(tmp_path, way):
    (tmp_path / "in" / "x").mkdir(parents=True)
    first = tmp_path / "in" / "figure"
    first.touch()
    second = ways(tmp_path, first)[way]
    with pytest.raises(OutputError, match="two outputs"):
        check_distinct(first, None, second)
    if way not in ("link", "hard"):
        first.unlink()  # nor will they be
        with pytest.raises(OutputError, match="two outputs"):
            check_distinct(first, None, second)
    check_distinct(first, None, tmp_path / "in" / "other", None)


@pytest.mark.parametrize(
    ("name", "suffixes", "right"),
    [
        ("a.png", (".png", ".pdf"), True), ("a.PNG", (".png",), True), ("a", (".png",), False),
        ("a.pdf", (".safetensors", ""), False), ("a", (".safetensors", ""), True), ("a.b", (), True), ("-", (), False),
    ],
)  # fmt: skip
def test_a_name_ends_in_what_the_file_will_be(tmp_path, monkeypatch, name, suffixes, right):
    monkeypatch.chdir(tmp_path)
    if right:
        return check_output(name, overwrite=False, suffixes=suffixes)
    with pytest.raises(OutputError, match=r"must end in|not streams"):
        check_output(name, overwrite=False, suffixes=suffixes)


def test_folders_are_made_for_a_file_and_for_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    check_output(path, overwrite=False)
    assert names(tmp_path) == []
    with pytest.raises(RuntimeError, match="gone"):
        write_atomic(path, failing(RuntimeError("gone")))
    assert names(tmp_path) == []
    write_atomic(path, b"data")
    assert path.read_bytes() == b"data"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refusing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match=r"cannot make the folder .*/a: No space left"):
        write_atomic(tmp_path / "a" / "file", b"data")


def failing(error):
    yield b"a"
    raise error


def refusing(error):
    def refuse(*_, **__):
        raise error

    return refuse


def without_unnamed_files(monkeypatch):
    """A system that only has files with names."""
    monkeypatch.delattr(os, "O_TMPFILE")


def without_links(monkeypatch):
    without_unnamed_files(monkeypatch)
    monkeypatch.setattr(Path, "hardlink_to", refusing(OSError(errno.EPERM, "Operation not permitted")))


SYSTEMS = pytest.mark.parametrize("system", [lambda _: None, without_unnamed_files, without_links])


@SYSTEMS
def test_all_systems_write_the_same(tmp_path, monkeypatch, system):
    system(monkeypatch)
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))  # no name is too long that the folder could have
    write_atomic(path, b"first")
    with pytest.raises(OutputError, match="exists already"):
        write_atomic(path, b"second")
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="exists already"):
        path.unlink()
        patch.setattr(os, "fsync", lambda _: path.write_bytes(b"first"))
        write_atomic(path, b"second")
    assert path.read_bytes() == b"first"
    write_atomic(path, b"third", overwrite=True)
    assert path.read_bytes() == b"third" and names(tmp_path) == [path.name]
    for error in (KeyError("gone"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_atomic(path, failing(error), overwrite=True)
    assert path.read_bytes() == b"third" and names(tmp_path) == [path.name]


@SYSTEMS
def test_what_a_check_refuses_takes_no_name(tmp_path, monkeypatch, system):
    system(monkeypatch)
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")

    def check(temporary):
        seen.append(temporary.read_bytes())
        raise CheckpointError("wrong")

    with pytest.raises(CheckpointError, match="wrong"):
        write_atomic(path, iter([b"ne", b"w"]), overwrite=True, check=check)
    assert seen == [b"new"] and path.read_bytes() == b"old" and names(tmp_path) == ["file"]


@SYSTEMS
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400, 0o755, 0o240])
def test_a_file_that_is_replaced_hands_on_its_mode_and_no_other_reads_more_before(tmp_path, monkeypatch, system, mode):
    system(monkeypatch)
    path, meanwhile = tmp_path / "file", []
    path.write_bytes(b"old")
    path.chmod(mode)
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (meanwhile.append(os.fstat(fd).st_mode), sync(fd)))
    write_atomic(path, b"new", overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == b"new"
    assert stat.S_IMODE(meanwhile[0]) & 0o077 & ~mode == 0


@SYSTEMS
def test_a_file_system_without_modes_is_no_reason_to_fail(tmp_path, monkeypatch, system):
    system(monkeypatch)

    def refuse(descriptor, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "model"
    path.write_bytes(b"old")
    path.chmod(0o640)
    monkeypatch.setattr(os, "fchmod", refuse)
    write_atomic(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["model"]


def test_a_file_that_is_replaced_hands_on_its_owner_where_that_is_allowed(tmp_path, monkeypatch):
    path, asked = tmp_path / "file", []
    path.write_bytes(b"old")
    path.chmod(0o664)
    path.stat().st_uid == 0 and os.chown(path, 1234, 2345)  # only root may give files away
    kept = path.stat()
    write_atomic(path, b"new", overwrite=True)
    assert (path.stat().st_uid, path.stat().st_gid) == (kept.st_uid, kept.st_gid)
    monkeypatch.setattr(os, "fchown", lambda *ids: asked.append(ids) or refusing(PermissionError(1, "not yours"))())
    if os.geteuid() == 0:
        write_atomic(path, b"newer", overwrite=True)
        assert [ids[1:] for ids in asked] == [(1234, 2345), (-1, 2345)]
        assert stat.S_IMODE(path.stat().st_mode) == 0o644  # another group may only do what all may


def test_a_write_goes_through_a_link_to_what_it_points_to(tmp_path):
    (tmp_path / "store").mkdir()
    real, link, second = tmp_path / "store" / "real", tmp_path / "link", tmp_path / "second"
    real.write_bytes(b"old")
    link.symlink_to(Path("store") / "real")
    second.symlink_to(link)
    with pytest.raises(OutputError, match="exists already"):
        check_output(second, overwrite=False)
    write_atomic(second, b"new", overwrite=True)
    assert link.is_symlink() and second.is_symlink() and not real.is_symlink()
    assert real.read_bytes() == b"new" and names(tmp_path / "store") == ["real"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to_nothing_or_in_a_circle_is_refused_before_the_work(tmp_path, overwrite):
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "circle").symlink_to("circle")
    for name, match in (("dangling", "link to nothing, which is not there"), ("circle", "symbolic links")):
        with pytest.raises(OutputError, match=match):
            check_output(tmp_path / name, overwrite=overwrite)
    assert names(tmp_path) == ["circle", "dangling"]


def test_names_that_are_not_utf8_are_written(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"))
    write_atomic(path, b"data")
    assert path.read_bytes() == b"data"
