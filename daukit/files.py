"""Writing files so that nothing is ever lost: whole or not at all, and never over another file unasked."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from daukit.errors import OutputError, in_words_of_caller


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise ``OutputError`` if ``path`` cannot take an output; commands call it before they start to work."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is not an ordinary file; choose another name")
    if path.exists() and not overwrite:
        raise _taken(path)
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: the folder {folder} is not writable")


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, overwrite: bool = False) -> None:
    """Write ``data`` to ``path`` through a temporary file beside it, so that no reader ever sees a part of it.

    Args:
        path: the file to be.
        data: its bytes, or its parts one after the other, for a file that need not be in memory whole.
        overwrite: replace ``path`` if it exists.

    Raises:
        OutputError: the name is taken and ``overwrite`` is False, or the disk refuses; the folder is left as it was.
    """
    check_output(path, overwrite=overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot write to {path.parent}: {error.strerror}") from None
    temporary, written = Path(name), 0
    try:
        with os.fdopen(handle, "wb") as file:
            for part in (data,) if isinstance(data, bytes) else data:
                written += len(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        _move(temporary, path, overwrite)
    except OSError as error:
        raise OutputError(f"{path}: cannot write {written:,} bytes: {error.strerror}; nothing was changed") from None
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without hard links: the check and the rename are two steps there.
        check_output(path, overwrite=False)
        temporary.replace(path)


def _taken(path: Path) -> OutputError:
    how = in_words_of_caller("overwrite=True", "--overwrite")
    return OutputError(f"{path}: exists already; choose another name or pass {how}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
