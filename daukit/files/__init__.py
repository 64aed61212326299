"""Writing files so that nothing is ever lost: whole or not at all, and never over another file unasked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from daukit.errors import DaukitError, OutputError, in_words_of_caller
from daukit.files.temporary import Temporary, is_nobodys, new_name, sweep, terminating_cleanly

CHECKPOINT_SUFFIXES = (".safetensors", "")

Name = str | Path


def check_output(path: Name, *, overwrite: bool, sources: Iterable[Name] = (), suffixes: Sequence[str] = ()) -> None:
    """Raise ``OutputError`` if ``path`` cannot take an output; commands call it before they start to work.

    Args:
        path: the file to be. Its folder need not be there yet.
        overwrite: whether it may exist.
        sources: what the work reads: files, or folders for the files in them. None of them may be the output,
            by whatever name.
        suffixes: what its name may end in, in lower case; ``""`` is a name without any. Default: anything.
    """
    path = Path(path)
    exists = _exists(path)
    target = _target(path)
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    _check_name(path, suffixes)
    if exists and not target.is_file():
        raise OutputError(f"{path}: is not an ordinary file; choose another name")
    for source in map(Path, sources) if exists else ():  # first: to permit overwriting would not help
        if _is_same(target, source) or _is_same(target, source / target.name):
            raise OutputError(f"{path}: is read here, so it cannot be the output; write to another name and move that")
    if exists and not overwrite:
        raise _taken(path)
    _check_folder(path, target.parent)


def check_distinct(*paths: Name | None) -> None:
    """Raise ``OutputError`` if two of several outputs are one file, by whatever names; None is no output."""
    given = [Path(path) for path in paths if path is not None]
    for first, second in combinations(given, 2):
        if _is_same(_target(first), _target(second)):
            raise OutputError(f"{second}: would take two outputs; give each of them a name of its own")


def write_atomic(
    path: Name,
    data: bytes | Iterable[bytes],
    *,
    overwrite: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write ``data`` to ``path`` through a temporary file beside it, so that no reader ever sees a part of it.

    Folders that are not there are made. A link stays, and what it points to is replaced. A file that is replaced
    hands on its mode and, where the system permits, its owner.

    Args:
        path: the file to be.
        data: its bytes, or its parts one after the other, for a file that need not be in memory whole.
        overwrite: replace ``path`` if it exists.
        check: looks at the whole file before it takes its name, and raises where it should not have it.

    Raises:
        OutputError: the name is taken and ``overwrite`` is False, or the disk refuses; the folder is left as it was.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    target, written, done = _target(path), 0, False
    made = _make_folder(path, target.parent)
    try:
        sweep(target)
        with terminating_cleanly(), Temporary.create(target) as temporary:
            for part in (data,) if isinstance(data, bytes) else data:
                written += len(part)
                temporary.file.write(part)
            temporary.finish()
            if check is not None:
                check(temporary.path)
            temporary.become(target, replace=overwrite)
        done = True
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise OutputError(f"{path}: cannot write {written:,} bytes: {error.strerror}; nothing was changed") from None
    finally:
        for folder in () if done else reversed(made):
            _remove_empty(folder)


def check_new_folder(path: Name) -> None:
    """Raise ``OutputError`` if ``path`` cannot become a folder; nothing replaces a file by one."""
    if Path(path).is_file():
        raise OutputError(f"{path}: is a file, and a folder is to be written; choose another name")
    if Path(path).is_dir():
        raise OutputError(f"{path}: is there already; name a folder to be made, or remove this one")
    check_output(path, overwrite=False)


@contextmanager
def new_folder(path: Name) -> Iterator[Path]:
    """A folder to fill. It takes the name ``path`` when the context is left, and goes where something fails there.

    Raises:
        OutputError: the name is taken, or the folder cannot be made; nothing is changed then.
    """
    path = Path(path)
    check_new_folder(path)
    made, temporary, handle = _make_folder(path, path.parent), new_name(path.parent), None
    sweep(path)
    try:
        with terminating_cleanly():
            try:
                temporary.mkdir()
                if sys.platform != "win32":  # where folders cannot be opened
                    handle = os.open(temporary, os.O_RDONLY)
                    is_nobodys(handle)  # from here on it is this process's
                yield temporary
                temporary.rename(path)
                made = []
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror}; nothing was changed") from None
    except DaukitError as error:
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    finally:
        if handle is not None:
            os.close(handle)
        for folder in reversed(made):
            _remove_empty(folder)


def _check_name(path: Path, suffixes: Sequence[str]) -> None:
    if str(path) == "-":
        raise OutputError("-: outputs are files, not streams; name a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: its name must end in {' or '.join(suffix for suffix in suffixes if suffix)}")


def _target(path: Path) -> Path:
    """The file that ``path`` stands for: where a link points to, else itself."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # a circle of links is a RuntimeError before Python 3.13
        raise OutputError(
            f"{path}: is a link to {path.readlink()}, which is not there; remove the link, or write to another name"
        ) from None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # too long a name, no right to look, or a null character in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{path}: cannot be written: {reason}; choose another name") from None
    return True


def _is_same(path: Path, other: Path) -> bool:
    """Return True if both names lead to one file, or would: links and relative names count."""
    try:
        return path.samefile(other)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(other)


def _check_folder(path: Path, folder: Path) -> None:
    """Raise ``OutputError`` unless ``folder`` is there, or can be made, and takes files."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{path}: {there} is not a folder; choose another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {there} is not writable")


def _make_folder(path: Path, folder: Path) -> list[Path]:
    """Make ``folder``, and return those that were not there before, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    missing.reverse()
    for one in missing:
        try:
            one.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot make the folder {one}: {error.strerror}") from None
    return missing


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # somebody else has put a file into it


def _taken(path: Path) -> OutputError:
    how = in_words_of_caller("overwrite=True", "--overwrite")
    return OutputError(f"{path}: exists already; choose another name or pass {how}")
