"""Prune a file into another one layer by layer, so that neither of them is ever in memory as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from daukit.checkpoint import Checkpoint, CheckpointFile, Header
from daukit.checkpoint.building import check_told
from daukit.checkpoint.rewriting import Rewriting
from daukit.errors import CheckpointError
from daukit.pruning.removal import ragged_tensors, with_ragged_layers
from daukit.pruning.rules import Rule
from daukit.pruning.selection import PruneReport, select


@dataclass(frozen=True)
class FileReport:
    """The units that pruning a file removed, the bytes of both files, and the source's header."""

    report: PruneReport
    bytes_before: int
    bytes_after: int
    header: Header


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

        def tensors_of(layer: str) -> dict[str, Tensor]:
            part = before.part(layer)
            return ragged_tensors(part, part.layer(layer), keeps[layer])

        changed = [name for name, keep in keeps.items() if not bool(keep.all())]
        start = Checkpoint(before.header, {}, before.path, before.digest())
        header = with_ragged_layers(start, {}, changed, "prune", rule.to_json()).header
        after = Rewriting(before, header, changed, tensors_of)
        if output is not None:
            after.write(output, overwrite=overwrite)
        return FileReport(report, bytes_before=before.size, bytes_after=after.size, header=before.header)
