"""Read what torch.save wrote as data: nothing in it is ever run."""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch

from daukit.checkpoint.archives import check_archive, is_archive
from daukit.checkpoint.file import open_file
from daukit.errors import CheckpointError


class Inert:
    """A stand-in for an object that a checkpoint has beside its tensors: it does nothing and holds nothing."""

    def __new__(cls, *args: object, **options: object) -> Inert:
        """Take whatever the pickle hands over, and forget it."""
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_HARMLESS = (
    "argparse.Namespace", "types.SimpleNamespace",
    "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone",
    *(f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in (
        "Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    "numpy.dtype", "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip
"""Types that people keep beside their tensors. None is made: an ``Inert`` takes its place, so nothing is run."""

_one_at_a_time = (
    threading.Lock()
)  # torch's list of what may be made, and Python's filters of warnings, are the process's


def is_pickle(path: Path) -> bool:
    """Tell a file that torch.save wrote: see ``opens_as_pickle``."""
    with opened(path) as file:
        return opens_as_pickle(file)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it; whatever the system refuses meanwhile is a ``CheckpointError``."""
    with BufferedReader(open_file(path)) as file:
        try:
            yield file
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def opens_as_pickle(file: BinaryIO) -> bool:
    """Tell what torch.save wrote: a zip archive, or the older bare pickle, which opens with the PROTO opcode."""
    file.seek(0)
    first = file.read(9)
    if first[8:] == b"{":  # safetensors: the length of a JSON header, then the header; the length may look like PROTO
        return False
    return is_archive(file) or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def load_object(file: BinaryIO, path: Path) -> Any:
    """The object in a file that ``opens_as_pickle``: its tensors are yet to pass the gate.

    Raises:
        CheckpointError: the file is damaged, of another kind, or its pickle asks for code to be run.
    """
    if is_archive(file):
        check_archive(file, path)
    file.seek(0)
    try:
        harmless = torch.serialization.safe_globals([(Inert, name) for name in _HARMLESS])
        with _one_at_a_time, harmless, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols and types: what is read is looked at afterwards
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        wants = f"asks for {asked[1]}" if asked else "is damaged or asks for code to be run"
        raise CheckpointError(
            f"{path}: its pickle {wants}, and daukit never runs code from a file; save only model.state_dict() and "
            "try again"
        ) from None
    # torch's own reader follows whatever the bytes say, and fails in as many ways as Python has. Nothing of ours runs
    # inside, so that no mistake of ours can hide here.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a complete torch file ({reason[:200]})") from None
