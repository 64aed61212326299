"""The layout of a safetensors file, computed from the tensors' shapes before any of them is read or made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from daukit.checkpoint.header import METADATA_KEY, Header
from daukit.errors import OutputError

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3", torch.int16: "I16", torch.uint16: "U16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.complex64: "C64", torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64",
}  # fmt: skip
"""The format's names; a file holds the tensors of the last of these types first, by name within a type."""
BY_NAME = {name: dtype for dtype, name in DTYPES.items()}
"""torch's types by the format's names."""

_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}


class Entry(NamedTuple):
    """Type and shape of one tensor in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """A file before its tensors are written.

    Attributes:
        start: its first bytes, up to the first tensor.
        names: its tensors, in the order in which their values follow.
        size: bytes of the whole file.
    """

    start: bytes
    names: tuple[str, ...]
    size: int


def layout(header: Header, entries: Mapping[str, Entry]) -> Layout:
    """The file of ``header`` and tensors like ``entries``, to the byte as safetensors lays it out.

    Raises:
        OutputError: a tensor's type has no name in the format.
    """
    for name, entry in entries.items():
        if entry.dtype not in _RANK:
            raise OutputError(f"{name} is {entry.dtype}, which a safetensors file cannot hold")
    names = sorted(entries, key=lambda name: (-_RANK[entries[name].dtype], name))
    metadata = {**header.foreign, METADATA_KEY: header.to_json()}
    described: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in names:
        dtype, shape = entries[name]
        end = offset + entries[name].bytes
        described[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    return Layout(start, tuple(names), len(start) + offset)


def entry_of(tensor: Tensor) -> Entry:
    """The entry of ``tensor``."""
    return Entry(tensor.dtype, tuple(tensor.shape))


def values_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor's values, as a file holds them."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
