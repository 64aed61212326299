"""Pruning a file into another one layer by layer, so that neither of them is ever in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, CheckpointFile, Header, LayerUnits
from daukit.checkpoint.file import file_digest
from daukit.checkpoint.pickles import is_pickle
from daukit.errors import CheckpointError
from daukit.files import write_atomic
from daukit.pruning.layout import Entry, Layout, entry_of, layout
from daukit.pruning.removal import ragged_tensors, with_ragged_layers
from daukit.pruning.rules import Rule
from daukit.pruning.selection import PruneReport, select

_BLOCK = 2**20


@dataclass(frozen=True)
class FileReport:
    """What pruning a file did: the units, and the bytes of both files."""

    report: PruneReport
    bytes_before: int
    bytes_after: int


def is_daukit_file(path: str | Path) -> bool:
    """Whether ``path`` is one file with a daukit header, not a folder or a plain state dict.

    Raises:
        CheckpointError: it is a damaged safetensors file.
    """
    path = Path(path)
    if not path.is_file() or is_pickle(path):
        return False
    with CheckpointFile(path) as file:
        return file.header is not None


def prune_file(
    source: str | Path, rule: Rule, output: str | Path | None = None, *, overwrite: bool = False
) -> FileReport:
    """As ``prune`` and ``write``, to the byte, but with no more in memory than the units of one layer, twice.

    Beside them there is one byte for every unit of the network, and eight more where ``rule`` is a budget.

    Args:
        source: a daukit file.
        rule: which units go.
        output: where to write; None: only report.
        overwrite: replace ``output`` if it exists.

    Raises:
        ValueError: a budget of more units than there are.
        CheckpointError: ``source`` is missing, damaged, without a daukit header, or without the layers of the rule.
        OutputError: ``output`` exists and ``overwrite`` is False, or it cannot be written; nothing is changed then.
    """
    before = _Source.open(Path(source))
    report, keeps = select(before, rule)
    whole = [name for name, keep in keeps.items() if bool(keep.all())]
    after = _Pruned(before, {name: keep for name, keep in keeps.items() if name not in whole}, rule)
    plan = after.layout()
    size = before.path.stat().st_size  # before the output may take its place
    if output is not None:
        write_atomic(Path(output), after.pieces(plan), overwrite=overwrite)
    return FileReport(report, size, plan.size)


@dataclass(frozen=True)
class _Source:
    """A file whose layers are read when they are asked for.

    Attributes:
        path: the file.
        header: what it says of itself.
        entries: what it says of every tensor that it stores.
        places: where the values of each of them begin and end in it.
    """

    path: Path
    header: Header
    entries: dict[str, Entry]
    places: dict[str, tuple[int, int]]

    @classmethod
    def open(cls, path: Path) -> _Source:
        with CheckpointFile(path) as file:  # it checks what is read below
            if file.header is None:
                raise CheckpointError(
                    f"{path}: no daukit header; read it with daukit.checkpoint.read_any and prune that"
                )
            header = file.header
            entries = {name: entry_of(file.tensor(name)) for name in file.keys() if name not in header.tied}
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            described = json.loads(raw.read(size))
        offsets = {name: described[name]["data_offsets"] for name in entries}
        places = {name: (8 + size + start, 8 + size + end) for name, (start, end) in offsets.items()}
        return cls(path, header, entries, places)

    @property
    def layer_names(self) -> list[str]:
        return [description["name"] for description in self.header.layers]

    def part(self, layer: str) -> Checkpoint:
        """A checkpoint with the tensors of one layer only."""
        with CheckpointFile(self.path) as file:
            names = [name for name in file.keys() if name.rpartition(".")[0] == layer]
            return Checkpoint(self.header, {name: file.tensor(name) for name in names}, self.path)

    def layer(self, name: str) -> LayerUnits:
        return self.part(name).layer(name)


@dataclass(frozen=True)
class _Pruned:
    """The file to be: ``before`` with only the units ``keeps`` (bool, by layer) of some layers."""

    before: _Source
    keeps: dict[str, Tensor]
    rule: Rule

    def tensors(self, layer: str) -> dict[str, Tensor]:
        """The new tensors of a layer that loses units."""
        part = self.before.part(layer)
        return ragged_tensors(part, part.layer(layer), self.keeps[layer])

    def layout(self) -> Layout:
        new = {name: entry_of(tensor) for layer in self.keeps for name, tensor in self.tensors(layer).items()}
        entries, tied = {**self.before.entries, **new}, {}
        for owner in sorted(set(self.before.header.tied.values())):
            names = [owner, *sorted(name for name, first in self.before.header.tied.items() if first == owner)]
            same = [name for name in names if name not in new]
            for name in same:
                entries[name] = self.before.entries[owner]
            for name in same[1:]:
                tied[name] = same[0]
                del entries[name]
        start = Checkpoint(self.before.header, {}, self.before.path, file_digest(self.before.path))
        header = with_ragged_layers(start, {}, list(self.keeps), "prune", self.rule.to_json()).header
        return layout(replace(header, tied=tied), entries)

    def pieces(self, plan: Layout) -> Iterator[bytes]:
        """The file's bytes in their order."""
        yield plan.start
        tied = self.before.header.tied
        for name in plan.names:
            layer = name.rpartition(".")[0]
            new = self.tensors(layer) if layer in self.keeps else {}
            if name in new:
                yield new[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            else:
                yield from _blocks(self.before.path, *self.before.places[tied.get(name, name)])


def _blocks(path: Path, start: int, end: int) -> Iterator[bytes]:
    """The bytes ``start`` to ``end`` of a file."""
    with path.open("rb") as file:
        file.seek(start)
        for position in range(start, end, _BLOCK):
            yield file.read(min(_BLOCK, end - position))
