"""Files that do not have their name yet: without any where the system has such, so that no crash leaves one behind."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import FrameType, TracebackType

if sys.platform != "win32":
    import fcntl

_OWN = re.compile(r"\.daukit-[0-9a-f]{8}\.tmp")
_ABANDONED = 3600.0
"""Seconds since the last write from which a temporary file counts as abandoned: a living writer writes more often."""

_DESCRIPTORS = Path("/proc/self/fd")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems without links: macOS has two names for it, Windows uses the last one."""


@dataclass
class Temporary:
    """A file on its way; leaving its context removes it, unless it has become what it should be.

    Attributes:
        file: where its bytes go.
        name: its name in the folder; None as long as it has none.
    """

    file: BufferedRandom
    name: Path | None

    @classmethod
    def create(cls, target: Path) -> Temporary:
        """A new file in ``target``'s folder, which nobody may read who must not read ``target``."""
        # The system takes the umask away; asking for the umask would change it for all threads.
        mode = 0o600 if target.exists() else 0o666
        handle, name = _open_unnamed(target.parent, mode), None
        if handle is None:
            name = new_name(target.parent)
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        is_nobodys(handle)  # from here on it is this process's
        return cls(os.fdopen(handle, "w+b"), name)

    @property
    def path(self) -> Path:
        """A path by which this process can open the file."""
        return self.name or _DESCRIPTORS / str(self.file.fileno())

    def finish(self) -> None:
        """Bring all its bytes to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def become(self, target: Path, *, replace: bool) -> None:
        """Take the name ``target``, and where ``replace`` is set the place, the mode and the owner of a file there.

        Raises:
            FileExistsError: the name is taken, and ``replace`` is not set.
            OSError: the file system refuses.
        """
        if replace and target.exists():
            _copy_rights(target, self.file.fileno())
        if self.name is None and not replace:
            self._link(target)
            return
        if self.name is None:
            # A link cannot replace a file, but a rename can.
            name = new_name(target.parent)
            self._link(name)
            self.name = name
        if not replace:
            try:
                target.hardlink_to(self.name)
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            # A file system without hard links: the look and the rename are two steps there.
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if sys.platform == "win32":
            self.file.close()  # which may not be renamed while it is open
        self.name.replace(target)
        self.name = None

    def _link(self, name: Path) -> None:
        """Give the nameless file a name."""
        folder = os.open(name.parent, os.O_RDONLY)
        try:
            # Python only follows the link in /proc to the file where a folder's descriptor is passed.
            os.link(self.path, name.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def __enter__(self) -> Temporary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.file.close()
        except OSError:
            if error is None:
                raise
        finally:
            if self.name is not None:
                self.name.unlink(missing_ok=True)


@contextmanager
def terminating_cleanly() -> Iterator[None]:
    """Let SIGTERM first remove what is temporary, where it would end the process at once."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    terminated = False
    try:
        yield
    except _Terminated:
        terminated = True
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if terminated:
        signal.raise_signal(signal.SIGTERM)


class _Terminated(BaseException):
    """SIGTERM; none that code in between may take for an error."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def new_name(folder: Path) -> Path:
    """A name for a temporary file or folder: short, so that every folder can have it."""
    return folder / f".daukit-{secrets.token_hex(4)}.tmp"


def is_nobodys(handle: int) -> bool:
    """Return True if no process holds a temporary file or folder; this one then holds it while ``handle`` is open."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: what has not been written to for long is nobody's
    return True


def sweep(target: Path) -> None:
    """Remove what crashed writers have left in ``target``'s folder.

    That is: daukit's temporary files and folders, and those that version 0.1 named after ``target``; this user's, that
    nobody has written to for an hour, and that no living process holds.
    """
    # Version 0.1 took the names and the mode of Python's tempfile. Names without digits may be words: a file like
    # .model.settings is somebody's, and stays.
    older = re.compile(rf"\.{re.escape(target.name)}\.(?=[a-z]*[0-9_])[a-z0-9_]{{8}}")
    try:
        with os.scandir(target.parent) as entries:
            found = [entry for entry in entries if _OWN.fullmatch(entry.name) or older.fullmatch(entry.name)]
    except OSError:
        return  # sweeping is a courtesy
    for entry in found:
        try:
            if _is_abandoned(entry):
                (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
        except OSError:
            continue


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    theirs = hasattr(os, "geteuid") and status.st_uid != os.geteuid()
    if (
        theirs
        or time.time() - status.st_mtime < _ABANDONED
        or (not _OWN.fullmatch(entry.name) and status.st_mode & 0o077)
    ):
        return False
    handle = os.open(entry.path, os.O_RDONLY)
    try:
        return is_nobodys(handle)
    finally:
        os.close(handle)


def _open_unnamed(folder: Path, mode: int) -> int | None:
    """A file without a name in ``folder``; None where the system has none, or no way to name it later."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not (flag and _DESCRIPTORS.is_dir()):
        return None
    try:
        return os.open(folder, flag | os.O_RDWR, mode)
    except OSError as error:
        # File systems without them say that they do not know them, or that a folder cannot be written.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None
        raise


def _copy_rights(source: Path, descriptor: int) -> None:
    """Give an open file the owner and mode of ``source``, as far as the system permits."""
    if not hasattr(os, "fchown"):
        return
    status, own = source.stat(), os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        for owner in (status.st_uid, -1):  # who may not give a file away may still share it with their group
            try:
                os.fchown(descriptor, owner, status.st_gid)
                break
            except OSError:
                continue
    mode = stat.S_IMODE(status.st_mode)
    if os.fstat(descriptor).st_gid != status.st_gid:
        mode &= 0o7707 | (mode & 0o007) << 3  # another group may do what all may
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        try:
            os.fchmod(descriptor, mode)
        except OSError:
            pass  # a file system without modes; what the file has until then is less than any
