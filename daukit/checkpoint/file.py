"""Read and write safetensors files with a header."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from daukit.checkpoint.contents import Checkpoint, LayerUnits
from daukit.checkpoint.gate import check_described, checked
from daukit.checkpoint.header import METADATA_KEY, Header
from daukit.checkpoint.layout import BY_NAME, Entry, Layout, entry_of, layout, values_of
from daukit.checkpoint.stored import as_read, tied_names, to_store, whole_names
from daukit.errors import CheckpointError
from daukit.files import write_atomic
from daukit.texts import parse_json

_BLOCK = 2**20


class CheckpointFile:
    """A file opened lazily: the header at once, single tensors when asked for. Use it as a context manager.

    All that is read comes from the file that was opened, also when another has taken its name meanwhile.

    Attributes:
        path: the file.
        metadata: all its metadata, as text.
        header: its header, or None for a safetensors file that daukit did not write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_file(self.path)
        self._close = weakref.finalize(self, self._file.close)
        self._status = os.fstat(self._file.fileno())
        self._lock = threading.Lock()  # between moving to a place and reading there
        try:
            self._read_table()
        except BaseException:
            self._close()  # the error's traceback would keep it open
            raise

    def _read_table(self) -> None:
        self._check_table()
        size = int.from_bytes(self._bytes(0, 8), "little")
        table: dict[str, Any] = parse_json(self._bytes(8, size), self.path, what="its table of tensors")
        self.metadata: dict[str, str] = table.pop("__metadata__", {})
        self._start, self._table = 8 + size, table
        text = self.metadata.get(METADATA_KEY)
        self.header = None if text is None else replace(Header.from_json(text, self.path), foreign=self.foreign)
        self._tied = {} if self.header is None else self.header.tied
        self._whole = whole_names(self.header)

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def foreign(self) -> dict[str, str]:
        """The metadata beside daukit's own."""
        return {key: text for key, text in self.metadata.items() if key != METADATA_KEY}

    @property
    def size(self) -> int:
        """The file's bytes."""
        return self._status.st_size

    def keys(self) -> list[str]:
        """Names of the tensors, of those that are tied to others too."""
        return sorted({*self._table, *self._tied})

    def entry(self, name: str) -> Entry:
        """Describe one tensor of the file without its values.

        Raises:
            CheckpointError: there is no such tensor, or it is of a type or shape that the gate refuses.
        """
        said = self._said(name)
        if said["dtype"] not in BY_NAME:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} is of type {said['dtype']}; daukit reads {', '.join(BY_NAME)}"
            )
        entry = Entry(BY_NAME[said["dtype"]], tuple(said["shape"]))
        check_described(entry.dtype, len(entry.shape), name, self.path)
        return entry

    def tensor(self, name: str) -> Tensor:
        """Read one tensor; displacements that are stored as integers are float32.

        Raises:
            CheckpointError: as for ``entry``; or memory is short, or the file was cut meanwhile.
        """
        entry, (start, _) = self.entry(name), self._said(name)["data_offsets"]
        try:
            tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
        except RuntimeError:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} takes {entry.bytes:,} bytes, and there is not so much memory"
            ) from None
        if entry.bytes:
            self._fill(tensor.reshape(-1).view(torch.uint8).numpy().data, self._start + start)
        return as_read(checked(tensor, name, self.path), name, self._whole)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one tensor, in parts that are quick to copy."""
        start, end = self._said(name)["data_offsets"]
        for position in range(start, end, _BLOCK):
            yield self._bytes(self._start + position, min(_BLOCK, end - position))

    @property
    def layer_names(self) -> list[str]:
        """Names of the DAU layers, in the network's order."""
        return [] if self.header is None else [description["name"] for description in self.header.layers]

    def part(self, layer: str) -> Checkpoint:
        """A checkpoint with the tensors of one layer only."""
        assert self.header is not None
        names = [name for name in self.keys() if name.rpartition(".")[0] == layer]
        return Checkpoint(self.header, {name: self.tensor(name) for name in names}, self.path)

    def layer(self, name: str) -> LayerUnits:
        """The units of the DAU layer called ``name``, checked as those of a ``Checkpoint``."""
        return self.part(name).layer(name)

    def digest(self) -> str:
        """SHA-256 of the file, as hexadecimal digits."""
        digest = hashlib.sha256()
        for position in range(0, self.size, _BLOCK):
            digest.update(self._bytes(position, min(_BLOCK, self.size - position)))
        self.check_unchanged()
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise ``CheckpointError`` if the file was written into since it was opened."""
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise self._changed()

    def _check_table(self) -> None:
        """Let safetensors check the table: types, shapes, and places that follow each other up to the file's end."""
        same = Path(f"/proc/self/fd/{self._file.fileno()}")
        name = same if same.exists() else self.path
        try:
            with safe_open(name, framework="numpy"):
                pass
            now = name.stat()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{self.path}: not a complete safetensors file ({error}); was it cut short, or is it of another kind?"
            ) from None
        if not os.path.samestat(now, self._status):
            raise self._changed()

    def _said(self, name: str) -> dict[str, Any]:
        try:
            said: dict[str, Any] = self._table[self._tied.get(name, name)]
        except KeyError:
            raise CheckpointError(f"{self.path}: there is no tensor {name!r}") from None
        return said

    def _bytes(self, start: int, count: int) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data), start)
        return bytes(data)

    def _fill(self, view: memoryview, start: int) -> None:
        """Read what lies from ``start`` on, until ``view`` is full."""
        with self._lock:
            try:
                self._file.seek(start)
                while view:
                    count = self._file.readinto(view)
                    if not count:
                        raise self._changed()
                    view = view[count:]
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from None

    def _changed(self) -> CheckpointError:
        return CheckpointError(f"{self.path}: was changed while it was read; try again")


def open(path: str | Path) -> CheckpointFile:
    """Open a safetensors file lazily: its header and its single tensors, without reading the rest."""
    return CheckpointFile(path)


def read(path: str | Path) -> Checkpoint:
    """Read a daukit file whole, without building a model.

    Raises:
        CheckpointError: the file is missing, damaged, or has no daukit header.
    """
    with open(path) as file:
        return read_file(file)


def read_file(file: CheckpointFile) -> Checkpoint:
    """As ``read``, of a file that is open."""
    if file.header is None:
        raise CheckpointError(
            f"{file.path}: no daukit header; was it written by daukit.save()? A plain state dict needs its network "
            "named: daukit.load(path, model=...), or --model on the command line"
        )
    tied = file.header.tied
    tensors = {name: file.tensor(name) for name in file.keys() if name not in tied}
    tensors |= {name: tensors[owner] if owner in tensors else file.tensor(name) for name, owner in tied.items()}
    return Checkpoint(file.header, tensors, file.path, file.digest(), file_size=file.size)


def write(checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> int:
    """Write ``checkpoint`` atomically and return the file's size in bytes.

    A tensor that has several names, as the displacements that layers share, is stored once. The file only takes its
    name when daukit has read it again.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written; nothing is changed then.
        CheckpointError: what would be written is no checkpoint: values of a layer are NaN, or do not fit its header.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"write takes a daukit.Checkpoint, got {type(checkpoint).__name__}; daukit.save takes a model")
    plan, tensors = _plan(checkpoint)
    pieces = (values_of(tensors[name]) if name else plan.start for name in ("", *plan.names))
    write_atomic(path, pieces, overwrite=overwrite, check=partial(check_written, path=Path(path)))
    return plan.size


def stored_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of the file that ``write`` would make of ``checkpoint``."""
    return _plan(checkpoint)[0].size


def stored_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of the file that ``write`` would make of ``checkpoint``."""
    plan, tensors = _plan(checkpoint)
    digest = hashlib.sha256(plan.start)
    for name in plan.names:
        digest.update(values_of(tensors[name]))
    return digest.hexdigest()


def check_written(temporary: Path, path: Path) -> None:
    """Raise ``CheckpointError`` unless ``temporary``, which is to become ``path``, can be read."""
    try:
        with CheckpointFile(temporary) as file:
            for name in file.keys():
                file.entry(name)
            for name in file.layer_names:
                file.layer(name)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{temporary}: ")
        raise CheckpointError(f"{path}: was not written, since daukit could not read it: {reason}") from None


def open_file(path: Path) -> io.FileIO:
    """Open a file to read it.

    Raises:
        CheckpointError: there is none, it is a folder or a device, or may not be read.
    """
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: there is no such file")
        if not path.is_file():
            raise CheckpointError(f"{path}: is not a file")
        return io.FileIO(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def check_readable(path: Path) -> None:
    """Raise ``CheckpointError`` unless ``path`` is a file that may be read."""
    open_file(path).close()


def _plan(checkpoint: Checkpoint) -> tuple[Layout, dict[str, Tensor]]:
    """The layout of ``checkpoint``'s file, with tied tensors stored once, and the tensors that it holds."""
    tied = tied_names(checkpoint.tensors)
    once = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in tied}
    tensors = to_store(once, checkpoint.header, tied.items())
    entries = {name: entry_of(tensor) for name, tensor in tensors.items()}
    return layout(replace(checkpoint.header, tied=tied), entries), tensors
