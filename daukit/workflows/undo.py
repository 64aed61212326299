"""Take back the last rescale of a checkpoint, and write what was there before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daukit.checkpoint import Checkpoint, write
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.rescale import Mode, undo_rescale
from daukit.results import Count, Positive


@dataclass(frozen=True, kw_only=True)
class Undone:
    """A rescale by factors that was taken back.

    Attributes:
        mode: the mode that it had.
        factors: its factors, by layer.
        same_file: whether the result is the very file that was rescaled, byte for byte; null if the history does not
            tell its SHA-256.
        output: path of the checkpoint written; null where none was.
        bytes: size of the checkpoint written.
    """

    mode: Mode
    factors: dict[str, Positive]
    same_file: bool | None
    output: Path | None
    bytes: Count | None


def undo_checkpoint(checkpoint: Checkpoint, output: Path | None = None, *, overwrite: bool = False) -> Undone:
    """Take back the last operation of a checkpoint, a rescale by factors.

    Args:
        checkpoint: it is not changed.
        output: file to write; None: none.
        overwrite: replace it if it exists.

    Raises:
        CheckpointError: as of ``daukit.rescale.undo_rescale``.
        OutputError: the output cannot be written.
    """
    if output is not None:
        sources = [] if checkpoint.path is None else [checkpoint.path]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)
    back, undoing = undo_rescale(checkpoint)
    size = None if output is None else write(back, output, overwrite=overwrite)
    return Undone(mode=undoing.mode, factors=undoing.factors, same_file=undoing.same_file, output=output, bytes=size)
