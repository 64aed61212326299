"""Import a trained file of another library, or write a checkpoint of daukit's anew."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daukit.checkpoint import Checkpoint, open, write, write_folder
from daukit.checkpoint.folder import CONFIG, MODEL
from daukit.errors import CheckpointError, in_words_of_caller, naming
from daukit.files import CHECKPOINT_SUFFIXES, check_new_folder, check_output
from daukit.importers import ImportOptions, Source, import_checkpoint
from daukit.results import Count
from daukit.workflows.card import CARD, FIGURE, card_of
from daukit.workflows.layers import StoredLayer, stored_layer_fields
from daukit.workflows.offsets import displacements_png

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint that was made of a file.

    Attributes:
        file: the file or folder that was read; None for a checkpoint in memory.
        architecture: name or factory of the network with its options; or the kind of file that it was imported from.
        output: checkpoint or folder written; None if none was.
        bytes: size of the checkpoint written.
    """

    file: Path | None
    architecture: dict[str, Any]
    output: Path | None
    bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Import(Conversion):
    """A file of another library that was imported.

    Attributes:
        source: library that wrote it.
        layers: the DAU layers.
        units: number of all units.
        other_tensors: number of tensors of other layers.
        preprocessing: mean, std, channel_order, value_range, input_size and class_names that the network expects.
        notes: what was assumed, changed or left out.
    """

    source: Source
    layers: tuple[StoredLayer, ...]
    units: Count
    other_tensors: Count
    preprocessing: dict[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rewrite(Conversion):
    """A checkpoint that was written anew, with the network as it is.

    Attributes:
        source: always daukit.
    """

    source: Literal["daukit"]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The place of a new checkpoint.

    Attributes:
        path: file or folder to write.
        folder: write a folder with ``config.json`` and ``model.safetensors``, as on the Hugging Face hub.
        overwrite: replace what exists.
        figure: put a figure of displacements into the folder, beside its model card.
    """

    path: Path
    folder: bool = False
    overwrite: bool = False
    figure: bool = False

    def check(self, sources: Iterable[Path]) -> None:
        """Raise ``OutputError`` if it cannot be written, or is one of the ``sources``; before any work."""
        sources = tuple(sources)
        if self.folder and self.path.is_dir():
            for name in (MODEL, CONFIG):
                check_output(self.path / name, overwrite=self.overwrite, sources=sources)
        elif self.folder:
            check_new_folder(self.path)
        else:
            check_output(self.path, overwrite=self.overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)

    def write(self, checkpoint: Checkpoint) -> int:
        """Write a checkpoint and return its size in bytes."""
        if not self.folder:
            return write(checkpoint, self.path, overwrite=self.overwrite)
        return write_folder(checkpoint, self.path, overwrite=self.overwrite, beside=self._beside(checkpoint))

    def _beside(self, checkpoint: Checkpoint) -> dict[str, bytes]:
        """The model card, with its figure where there are units to draw; a card that is there is its owner's."""
        drawn = self.figure and bool(checkpoint.layer_names)
        beside = {FIGURE: displacements_png(checkpoint)} if drawn else {}
        card = card_of(checkpoint, self.path.resolve().name, with_figure=drawn).encode()
        there = self.path / CARD
        if not there.exists():
            return {CARD: card, **beside}
        if there.read_bytes() != card:
            warnings.warn(f"{there} was there and stays; see whether it fits this network", stacklevel=2)
        return beside


def written(checkpoint: Checkpoint, destination: Destination | None) -> dict[str, Any]:
    """Write a checkpoint if there is a destination; return the fields of ``Conversion`` about it."""
    if destination is None:
        return {"output": None}
    return {"bytes": destination.write(checkpoint), "output": destination.path}


def import_file(file: Path, destination: Destination | None = None, **options: Unpack[ImportOptions]) -> Import:
    """Import a trained file of Caffe, TensorFlow or dcls and write it as a checkpoint.

    Args:
        file: as in ``import_checkpoint``.
        destination: where to write; None: only describe it.
        options: as in ``import_checkpoint``.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind, or an option does not fit it.
        OutputError: the destination cannot be written.
        DaukitError: the package that reads the format is not installed.
    """
    if destination is not None:
        destination.check(files_of(file, options.get("prototxt")))
    with naming(str(file)):
        checkpoint = import_checkpoint(file, **options)
    header, names = checkpoint.header, checkpoint.layer_names
    layers = tuple(StoredLayer(**stored_layer_fields(checkpoint.layer(name))) for name in names)
    arguments = header.history[-1]["arguments"]
    own = tuple(f"{name}." for name in names)
    return Import(
        file=file,
        source=arguments["source"],
        architecture=header.architecture,
        layers=layers,
        units=sum(layer.units for layer in layers),
        other_tensors=sum(not name.startswith(own) for name in checkpoint.tensors),
        preprocessing=None if header.preprocessing is None else header.preprocessing.to_json(),
        notes=tuple(arguments.get("notes", ())),
        **written(checkpoint, destination),
    )


def files_of(file: Path, prototxt: str | Path | None = None) -> list[Path]:
    """List the files that an import reads: ``file``, the network's text, and the parts of a TensorFlow checkpoint."""
    prefix = file.name.partition(".index")[0].partition(".data-")[0]
    kinds = (f"{prefix}.index", f"{prefix}.data-", f"{file.stem}.prototxt")
    beside = [path for path in file.parent.iterdir() if path.name.startswith(kinds)] if file.parent.is_dir() else []
    return [file, *beside, *([Path(prototxt)] if prototxt else [])]


def is_daukit(file: Path) -> bool:
    """True for a file of daukit's, and for a folder that is not TensorFlow's."""
    if file.is_dir():
        return not (file / "checkpoint").is_file()
    try:
        return open(file).header is not None
    except CheckpointError:
        return False


def check_rewrite(file: Path, *, folder: bool) -> None:
    """Refuse to write again what is there: a daukit file as a file, a folder as a folder.

    Raises:
        CheckpointError: there is nothing to convert.
    """
    if is_daukit(file) and folder == file.is_dir():
        shell = "--substitute, --units-table" + ("" if folder else " or --folder")
        how = in_words_of_caller("folder=True" if not folder else "folder=False", shell)
        raise CheckpointError(f"{file}: is a checkpoint of daukit's already, so nothing was converted; pass {how}")


def rewrite_checkpoint(checkpoint: Checkpoint, destination: Destination | None = None) -> Rewrite:
    """Write a checkpoint, read from a state dict, a file or a folder, as a file or a folder of daukit's.

    Args:
        checkpoint: as it was read.
        destination: where to write; None: only describe it.

    Raises:
        OutputError: the destination cannot be written.
    """
    if destination is not None:
        destination.check([] if checkpoint.path is None else [checkpoint.path])
    return Rewrite(
        file=checkpoint.path,
        source="daukit",
        architecture=checkpoint.header.architecture,
        **written(checkpoint, destination),
    )
