"""The folder of compiled kernels: one user's own, whose files are looked at before a GPU runs what they hold."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from daukit.errors import OutputError
from daukit.files import write_atomic

VARIABLE = "DAUKIT_CACHE"
"""Environment variable that names another folder."""

_MARK = b"daukit kernel\n"
_DIGEST = 32


def folder() -> Path:
    """The folder of caches: ``DAUKIT_CACHE``, or ``daukit`` in the user's cache folder, or one for temporary files."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    try:
        return _users_folder() / "daukit"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"daukit-{_user()}"


def read(name: str) -> bytes | None:
    """What ``keep`` kept under a name; None where there is nothing, or nothing that is whole and the user's own."""
    place = _private_folder()
    if place is None:
        return None
    try:
        with (place / name).open("rb") as file:
            if _is_foreign(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    head, digest, body = content[: len(_MARK)], content[len(_MARK) :][:_DIGEST], content[len(_MARK) + _DIGEST :]
    return body if head == _MARK and digest == hashlib.sha256(body).digest() else None


def keep(name: str, body: bytes) -> None:
    """Keep ``body`` for other processes, with its digest. What cannot be kept costs time only.

    Several processes may do so at once: each writes a file of its own and renames it.
    """
    place = _private_folder(make=True)
    if place is None:
        return
    try:
        write_atomic(place / name, _MARK + hashlib.sha256(body).digest() + body, overwrite=True)
    except (OSError, OutputError):
        pass


def _users_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _private_folder(make: bool = False) -> Path | None:
    """The folder in which nobody else can write; None where there is none, or it is another user's, or a link.

    The folder above it may be one that many share.
    """
    place = folder() / "kernels"
    try:
        if make:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
        state = place.lstat()
        if not stat.S_ISDIR(state.st_mode) or _is_foreign(state):
            return None
        if os.name == "posix" and stat.S_IMODE(state.st_mode) & 0o077:
            place.chmod(0o700)
    except OSError:
        return None
    return place


def _is_foreign(state: os.stat_result) -> bool:
    return os.name == "posix" and state.st_uid != _user()


def _user() -> int:
    return os.getuid() if os.name == "posix" else 0
