"""State dicts of any file, as people save them: tensors that do not say which network they are of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from daukit.checkpoint.file import CheckpointFile
from daukit.checkpoint.gate import check_all
from daukit.checkpoint.pickles import load_object, opened, opens_as_pickle
from daukit.checkpoint.wrappers import check_one, choose
from daukit.errors import CheckpointError


@dataclass(frozen=True)
class Plain:
    """A file's tensors, through the gate.

    Attributes:
        tensors: by the file's names.
        digest: SHA-256 of the file; of several, of their digests.
        size: bytes.
        entry: under which name of the file they were; "" if they were bare.
        notes: what a person should know of that choice.
        metadata: what the file says beside its tensors, as its licence.
    """

    tensors: dict[str, Tensor]
    digest: str
    size: int
    entry: str = ""
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def read_plain(path: Path, weights: str | None = None) -> Plain | None:
    """Read a file of torch.save's, or None for any other; arguments as in ``choose``.

    The file is opened once: what is looked at, read and digested is the same, even if it is replaced meanwhile.

    Raises:
        CheckpointError: it is damaged, asks for code to be run, or holds no state dict or several.
    """
    with opened(path) as file:
        if not opens_as_pickle(file):
            return None
        before = os.fstat(file.fileno())
        chosen = choose(load_object(file, path), weights, path)
        tensors = check_all(chosen.tensors, path)
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise CheckpointError(f"{path}: was changed while it was read; try again")
    return Plain(
        tensors, digest.hexdigest(), size=now.st_size, entry=chosen.entry, notes=(chosen.note,) if chosen.note else ()
    )


def read_parts(parts: tuple[Path, ...], place: Mapping[str, Path], weights: str | None = None) -> Plain:
    """Read a state dict that lies in several files, as ``read_plain`` and ``CheckpointFile`` read one."""
    tensors: dict[str, Tensor] = {}
    digests, size = hashlib.sha256(), 0
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    for part in parts:
        plain = read_plain(part, weights)
        if plain is None:
            check_one(part, weights)
            with CheckpointFile(part) as file:
                plain = of_file(file)
        names = [name for name, file in place.items() if file == part]
        missing = [name for name in names if name not in plain.tensors]
        if missing:
            raise CheckpointError(f"{part}: has no tensor {missing[0]!r}, which the index says is there")
        tensors |= {name: plain.tensors[name] for name in names}
        digests.update(plain.digest.encode())
        size, notes, metadata = size + plain.size, plain.notes, metadata | plain.metadata
    return Plain(tensors, digests.hexdigest(), size, notes=notes, metadata=metadata)


def of_file(file: CheckpointFile) -> Plain:
    """The tensors of an open safetensors file, whatever its metadata say."""
    tensors = {name: file.tensor(name) for name in file.keys()}
    return Plain(tensors, file.digest(), file.size, metadata=file.foreign)
