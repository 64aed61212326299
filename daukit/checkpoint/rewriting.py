"""A file made of another one layer by layer, so that neither of them is ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from daukit.checkpoint.file import CheckpointFile, check_written
from daukit.checkpoint.header import Header
from daukit.checkpoint.layout import Layout, entry_of, layout, values_of
from daukit.checkpoint.pickles import is_pickle
from daukit.checkpoint.stored import to_store
from daukit.files import write_atomic


def is_daukit_file(path: str | Path) -> bool:
    """Tell one file with a daukit header from a folder or a plain state dict.

    Raises:
        CheckpointError: it is a damaged safetensors file.
    """
    path = Path(path)
    if not path.is_file() or is_pickle(path):
        return False
    with CheckpointFile(path) as file:
        return file.header is not None


@dataclass(frozen=True)
class Rewriting:
    """The file to be: ``before`` with another header and other tensors of some layers.

    Attributes:
        before: the open file that everything else comes from.
        header: the new header; which names share a tensor is found out anew.
        layers: names of the layers whose tensors change.
        tensors_of: the new tensors of such a layer, by their names in the file; called twice for each layer.
    """

    before: CheckpointFile
    header: Header
    layers: Collection[str]
    tensors_of: Callable[[str], dict[str, Tensor]]

    @property
    def size(self) -> int:
        """Bytes of the file to be."""
        return self._layout.size

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the file atomically, after daukit has read it again.

        Raises:
            OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written; nothing is changed then.
            CheckpointError: ``before`` was changed meanwhile.
        """
        write_atomic(path, self._pieces(), overwrite=overwrite, check=partial(check_written, path=Path(path)))

    @cached_property
    def _layout(self) -> Layout:
        new = {name: entry_of(tensor) for layer in self.layers for name, tensor in self._stored(layer).items()}
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
        return layout(replace(self.header, tied=tied), entries)

    def _stored(self, layer: str) -> dict[str, Tensor]:
        return to_store(self.tensors_of(layer), self.header)

    def _pieces(self) -> Iterator[bytes]:
        """The file's bytes in their order."""
        yield self._layout.start
        for name in self._layout.names:
            layer = name.rpartition(".")[0]
            new = self._stored(layer) if layer in self.layers else {}
            if name in new:
                yield values_of(new[name])
            else:
                yield from self.before.blocks(name)
        self.before.check_unchanged()
