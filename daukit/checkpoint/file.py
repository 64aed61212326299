"""Reading and writing safetensors files with a header."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from daukit.checkpoint.header import METADATA_KEY, Header
from daukit.checkpoint.memory import Checkpoint
from daukit.errors import CheckpointError
from daukit.files import write_atomic


class CheckpointFile:
    """A file opened lazily: the header at once, single tensors when asked for. Use it as a context manager.

    Attributes:
        path: the file.
        metadata: all its metadata, as text.
        header: its header, or None for a safetensors file that daukit did not write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_readable(self.path)
        try:
            self._file = safe_open(self.path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{self.path}: not a complete safetensors file ({error}); was it cut short, or is it of another kind?"
            ) from None
        self.metadata: dict[str, str] = self._file.metadata() or {}
        text = self.metadata.get(METADATA_KEY)
        self.header = None if text is None else Header.from_json(text, self.path)
        self._tied = {} if self.header is None else self.header.tied

    def __enter__(self) -> CheckpointFile:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def keys(self) -> list[str]:
        """Names of the tensors, of those that are tied to others too."""
        return sorted({*self._file.keys(), *self._tied})

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        try:
            tensor: Tensor = self._file.get_tensor(self._tied.get(name, name))
        except SafetensorError:
            raise CheckpointError(f"{self.path}: there is no tensor {name!r}") from None
        return tensor


def open(path: str | Path) -> CheckpointFile:
    """Open a safetensors file lazily: its header and its single tensors, without reading the rest."""
    return CheckpointFile(path)


def read(path: str | Path) -> Checkpoint:
    """Read a daukit file whole, without building a model.

    Raises:
        CheckpointError: the file is missing, damaged, or has no daukit header.
    """
    with open(path) as file:
        if file.header is None:
            raise CheckpointError(
                f"{file.path}: no daukit header; was it written by daukit.save()? A plain state dict needs its network "
                "named: daukit.load(path, model=...), or --model on the command line"
            )
        tied = file.header.tied
        tensors = {name: file.tensor(name) for name in file.keys() if name not in tied}
        tensors |= {name: tensors[owner] if owner in tensors else file.tensor(name) for name, owner in tied.items()}
    return Checkpoint(file.header, tensors, file.path, file_digest(file.path))


def write(checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> int:
    """Write ``checkpoint`` atomically and return the file's size in bytes.

    A tensor that has several names, as the displacements that layers share, is stored once.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written; nothing is changed then.
    """
    tied = tied_names(checkpoint.tensors)
    stored = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in tied}
    header = replace(checkpoint.header, tied=tied)
    data = safetensors.torch.save(_unshared(stored), {METADATA_KEY: header.to_json()})
    write_atomic(Path(path), data, overwrite=overwrite)
    return len(data)


def check_readable(path: Path) -> None:
    """Raise ``CheckpointError`` unless ``path`` is a file."""
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def tied_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are, in the same memory, the same as one of an earlier name: {name: earlier name}."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(same, name) != name:
            tied[name] = first[same]
    return tied


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors asks."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if pointer in seen else tensor.contiguous()
        seen.add(pointer)
    return result


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
