"""Pruning a file into another one layer by layer, so that neither of them is ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from daukit.checkpoint import Checkpoint, CheckpointFile, Header
from daukit.checkpoint.building import check_told
from daukit.checkpoint.file import check_written
from daukit.checkpoint.layout import Layout, entry_of, layout, values_of
from daukit.checkpoint.pickles import is_pickle
from daukit.errors import CheckpointError
from daukit.files import write_atomic
from daukit.pruning.removal import ragged_tensors, with_ragged_layers
from daukit.pruning.rules import Rule
from daukit.pruning.selection import PruneReport, select


@dataclass(frozen=True)
class FileReport:
    """What pruning a file did: the units, and the bytes of both files; and the source's header."""

    report: PruneReport
    bytes_before: int
    bytes_after: int
    header: Header


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
    with CheckpointFile(source) as before:
        if before.header is None:
            raise CheckpointError(
                f"{before.path}: no daukit header; read it with daukit.checkpoint.read_any and prune that"
            )
        check_told(before.header, before.path)
        report, keeps = select(before, rule)
        after = _Pruned(before, before.header, {n: keep for n, keep in keeps.items() if not bool(keep.all())}, rule)
        plan = after.layout()
        if output is not None:
            check = partial(check_written, path=Path(output))
            write_atomic(output, after.pieces(plan), overwrite=overwrite, check=check)
        return FileReport(report, before.size, plan.size, before.header)


@dataclass(frozen=True)
class _Pruned:
    """The file to be: ``before`` with only the units ``keeps`` (bool, by layer) of some layers."""

    before: CheckpointFile
    header: Header
    keeps: dict[str, Tensor]
    rule: Rule

    def tensors(self, layer: str) -> dict[str, Tensor]:
        """The new tensors of a layer that loses units."""
        part = self.before.part(layer)
        return ragged_tensors(part, part.layer(layer), self.keeps[layer])

    def layout(self) -> Layout:
        new = {name: entry_of(tensor) for layer in self.keeps for name, tensor in self.tensors(layer).items()}
        old = self.header.tied
        entries = {name: self.before.entry(name) for name in self.before.keys() if name not in old} | new
        tied = {}
        for owner in sorted(set(old.values())):
            names = [owner, *sorted(name for name, first in old.items() if first == owner)]
            same = [name for name in names if name not in new]
            for name in same:
                entries[name] = self.before.entry(owner)
            for name in same[1:]:
                tied[name] = same[0]
                del entries[name]
        start = Checkpoint(self.header, {}, self.before.path, self.before.digest())
        header = with_ragged_layers(start, {}, list(self.keeps), "prune", self.rule.to_json()).header
        return layout(replace(header, tied=tied), entries)

    def pieces(self, plan: Layout) -> Iterator[bytes]:
        """The file's bytes in their order."""
        yield plan.start
        for name in plan.names:
            layer = name.rpartition(".")[0]
            new = self.tensors(layer) if layer in self.keeps else {}
            if name in new:
                yield values_of(new[name])
            else:
                yield from self.before.blocks(name)
        self.before.check_unchanged()
