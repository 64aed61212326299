"""TensorFlow's V2 checkpoints, read without TensorFlow: an index of names beside files of raw values.

The index is a table (``tensorflow_table.py``) whose values are protobuf messages that say where each tensor's bytes lie
in ``.data-00000-of-00001`` and its likes.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import ExitStack
from pathlib import Path, PureWindowsPath
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from daukit.checkpoint.file import check_readable
from daukit.errors import CheckpointError
from daukit.importers.checksums import masked_crc32c
from daukit.importers.layers import check_sizes
from daukit.importers.messages import Message, parse, read_text_message
from daukit.importers.tensorflow_table import entries_of, index_path, is_index

# TensorFlow's numbers of types.
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
_NO_NUMBERS = (7, 20, 21)  # text, resources and variants: what TensorFlow itself keeps beside the weights


def newest_checkpoint(folder: Path) -> Path:
    """The index that a folder's ``checkpoint`` file names as the newest; it is looked for in the folder alone.

    Raises:
        CheckpointError: there is no such file, it is none of TensorFlow's, or what it names is not there.
    """
    state = folder / "checkpoint"
    check_readable(state)
    named = read_text_message("CheckpointState", state).model_checkpoint_path
    # TensorFlow writes the path where it trained, which may be another machine's.
    path = folder / f"{PureWindowsPath(named).name}.index"
    if not is_index(path):
        raise CheckpointError(
            f"{state}: names {named!r}, but there is no index of a checkpoint {path.name} beside it; name the "
            "checkpoint itself"
        )
    return path


class Bundle:
    """The numeric tensors of a checkpoint, read one by one when asked for. Use it as a context manager.

    Attributes:
        path: the index.
        names: of the tensors.
        left_out: names of what is stored in types that daukit has none of.
        digest: SHA-256 of the index.
    """

    def __init__(self, path: Path) -> None:
        """Read the index ``path``, no data yet.

        Raises:
            CheckpointError: the index is missing, cut short or damaged, or its tensors overlap.
        """
        self.path = path
        check_readable(path)
        if not is_index(path):
            raise CheckpointError(f"{path}: not a whole index of a TensorFlow checkpoint")
        data = path.read_bytes()
        self.digest = hashlib.sha256(data).hexdigest()
        entries = dict(entries_of(data, path))
        self._shards = _shards(parse("BundleHeaderProto", entries.pop(b"", b""), path), path)
        self._entries: dict[str, Message] = {}
        self.left_out: list[str] = []
        for key, value in entries.items():
            self._add(key, parse("BundleEntryProto", value, path))
        self.names = list(self._entries)
        self._check_places()
        self._files: dict[int, BinaryIO] = {}
        self._open = ExitStack()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, name: str) -> Tensor:
        """Read one tensor, and compare its checksum.

        Raises:
            CheckpointError: its data file is missing, cut short or damaged, or does not hold what the index says.
        """
        entry = self._entries[name]
        dtype, where = _DTYPES[entry.dtype], f"{self.path}: {name}"
        shape = check_sizes([dim.size for dim in entry.shape.dim], where)
        file, size = self._file(entry.shard_id, name), math.prod(shape) * dtype.itemsize
        held = os.fstat(file.fileno()).st_size
        if entry.size != size or not 0 <= entry.offset <= held - size:
            raise CheckpointError(
                f"{where} {shape} takes {size} bytes, the index says {entry.size} from byte {entry.offset} of "
                f"{Path(file.name).name}, which has {held}"
            )
        values = np.empty(size, np.uint8)
        file.seek(entry.offset)
        if file.readinto(values) != size or masked_crc32c(values) != entry.crc32c:  # type: ignore[attr-defined]
            raise CheckpointError(
                f"{where}: its checksum is wrong: bytes {entry.offset} to {entry.offset + size} of "
                f"{Path(file.name).name} are not those that were written; copy the checkpoint again"
            )
        if dtype == torch.bool and values.max(initial=0) > 1:
            raise CheckpointError(f"{where}: holds bytes other than 0 and 1, though its type is bool")
        return torch.from_numpy(values).view(dtype).reshape(shape)

    def _add(self, key: bytes, entry: Message) -> None:
        if entry.slices:
            name = key.decode(errors="replace")
            raise CheckpointError(f"{self.path}: {name} is cut into parts; save it whole and try again")
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: {key!r} is no name in UTF-8") from None
        if entry.dtype in _DTYPES:
            self._entries[name] = entry
        elif entry.dtype not in _NO_NUMBERS:
            self.left_out.append(name)

    def _check_places(self) -> None:
        """Refuse tensors that share bytes: few of them could stand for any number."""
        ends: dict[int, int] = {}
        for name, entry in sorted(self._entries.items(), key=lambda item: item[1].offset):
            if entry.size > 0 and entry.offset < ends.get(entry.shard_id, 0):
                raise CheckpointError(f"{self.path}: {name} begins at byte {entry.offset}, within another tensor")
            ends[entry.shard_id] = max(ends.get(entry.shard_id, 0), entry.offset + entry.size)

    def _file(self, shard: int, name: str) -> BinaryIO:
        if shard not in self._files:
            path = self.path.with_name(f"{self.path.stem}.data-{shard:05d}-of-{self._shards:05d}")
            if not path.is_file():
                raise CheckpointError(f"{self.path}: there is no {path.name} beside it, which holds {name}")
            check_readable(path)
            self._files[shard] = self._open.enter_context(path.open("rb"))
        return self._files[shard]


def _shards(header: Message, path: Path) -> int:
    """Number of data files."""
    if header.num_shards < 1 or header.endianness != 0:
        raise CheckpointError(
            f"{path}: {header.num_shards} data files, byte order {header.endianness}; there must be one at least, of "
            "little-endian numbers"
        )
    return int(header.num_shards)


__all__ = ["Bundle", "index_path", "is_index", "newest_checkpoint"]
