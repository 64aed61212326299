"""``.npz`` archives of numpy arrays: checked as a whole, then read one array at a time."""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from daukit.checkpoint.archives import check_apart
from daukit.checkpoint.file import check_readable
from daukit.errors import CheckpointError
from daukit.importers.layers import check_distinct, check_sizes, digest_of

# What zipfile and numpy raise on damaged archives; numpy's headers are Python's literals.
_DAMAGE = (
    ValueError, TypeError, AttributeError, LookupError, OSError, EOFError, MemoryError, OverflowError, RuntimeError,
    SyntaxError, struct.error, tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")  # which torch and safetensors have, too
_MAX_HEADER = 10_000  # bytes, numpy's own bound
_PART = 1 << 20  # bytes read at a time
# What an archive may unpack to beyond its own size: weights hardly compress, a bomb does so a thousand times.
_MAX_RATIO = 100
_FREE = 1 << 28


def is_npz(path: Path) -> bool:
    """True if ``path`` is an archive of numpy arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist()) and all(name.endswith(".npy") for name in archive.namelist())
    except _DAMAGE:
        return False


@dataclass(frozen=True)
class _Array:
    """A member of the archive: the place, shape and type of its values."""

    member: zipfile.ZipInfo
    start: int
    shape: list[int]
    is_transposed: bool
    dtype: np.dtype[np.generic]


class Archive:
    """The numeric arrays of a ``.npz`` file, read one by one when asked for. Use it as a context manager.

    Attributes:
        path: the file.
        names: of the arrays.
        left_out: names of what is in the archive, but no array of a type that daukit has.
        digest: SHA-256 of the file.
    """

    def __init__(self, path: Path) -> None:
        """Check the archive; no values are read yet.

        Raises:
            CheckpointError: the file is missing or damaged, its members overlap, or they would fill the memory.
        """
        self.path = path
        check_readable(path)
        with self._reporting_damage():
            self._file = path.open("rb")
        try:
            with self._reporting_damage():
                self.digest = digest_of(self._file)
                self._archive = zipfile.ZipFile(self._file)
                self._look_over()
                arrays = {m.filename.removesuffix(".npy"): self._described(m) for m in self._archive.infolist()}
        except BaseException:
            self._file.close()
            raise
        self._arrays = {name: array for name, array in arrays.items() if array is not None}
        self.names = list(self._arrays)
        self.left_out = [name for name, array in arrays.items() if array is None]

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
        self._file.close()

    def read(self, name: str) -> Tensor:
        """Read one array; zipfile compares its checksum when it comes to its end.

        Raises:
            CheckpointError: it is damaged.
        """
        array = self._arrays[name]
        with self._reporting_damage(), self._archive.open(array.member) as file:
            values = np.empty(math.prod(array.shape) * array.dtype.itemsize, np.uint8)
            file.read(array.start)
            place = 0
            while part := file.read(_PART):
                values[place : place + len(part)] = np.frombuffer(part, np.uint8)
                place += len(part)
            if place != len(values):
                raise ValueError(f"{name} ends after {place} of {len(values)} bytes")
            if array.dtype == bool and values.max(initial=0) > 1:
                raise ValueError(f"{name} holds bytes other than 0 and 1, though its type is bool")
            typed = values.view(array.dtype).astype(array.dtype.newbyteorder("="), copy=False)
            if array.is_transposed:
                typed = typed.reshape(array.shape[::-1]).T
            return torch.from_numpy(np.ascontiguousarray(typed).reshape(array.shape))

    def _look_over(self) -> None:
        """Refuse a central directory whose members could not all be there."""
        members = self._archive.infolist()
        check_distinct(self.path, (member.filename for member in members))
        size, total = os.fstat(self._file.fileno()).st_size, sum(member.file_size for member in members)
        if total > max(_FREE, _MAX_RATIO * size):
            raise CheckpointError(
                f"{self.path}: {size} bytes that unpack to {total}; weights do not compress so well (more than "
                f"{_MAX_RATIO} times), so it is damaged or made to fill the memory"
            )
        check_apart(members, self.path)

    def _described(self, member: zipfile.ZipInfo) -> _Array | None:
        """Read a member's header; None if it holds no numbers."""
        if not member.filename.endswith(".npy"):
            return None
        with self._archive.open(member) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about headers of Python 2
            magic = file.read(8)
            version = np.lib.format.read_magic(io.BytesIO(magic))
            wide = 4 if version == (2, 0) else 2
            length = file.read(wide)
            size = int.from_bytes(length, "little")
            if version not in ((1, 0), (2, 0)) or size > _MAX_HEADER:
                raise ValueError(f"{member.filename} has a header of version {version} and {size} bytes")
            header = io.BytesIO(length + file.read(size))
            read = np.lib.format.read_array_header_2_0 if wide == 4 else np.lib.format.read_array_header_1_0
            shape, is_transposed, dtype = read(header)
        if dtype.str[1:] not in _TYPES:
            return None
        sizes, start = check_sizes(shape, f"{self.path}: {member.filename}"), 8 + wide + size
        if start + math.prod(sizes) * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename} has {member.file_size} bytes, which is not what its header states")
        return _Array(member, start, sizes, is_transposed, dtype)

    @contextmanager
    def _reporting_damage(self) -> Iterator[None]:
        """Turn any error of a damaged archive into one line."""
        try:
            yield
        except _DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"{self.path}: not a whole .npz file of numbers: {reason}") from None
