"""Folders as the Hugging Face hub lays them out: ``config.json`` beside ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daukit.checkpoint.contents import Checkpoint
from daukit.checkpoint.file import CheckpointFile, check_readable, write
from daukit.checkpoint.header import METADATA_KEY, Header
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.files import check_output, new_folder, write_atomic
from daukit.limits import in_short
from daukit.texts import parse_json, read_text

MODEL, PICKLE, CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"
_INDEX = ".index.json"
INDICES = (f"{MODEL}{_INDEX}", f"{PICKLE}{_INDEX}")
"""Files that say in which of several files each tensor lies."""

_KIND = "daukit"
_MAKERS = {".index": "TensorFlow", ".caffemodel": "Caffe"}
"""Whose a file is, by its suffix, where another command reads it."""


def write_folder(
    checkpoint: Checkpoint,
    folder: str | Path,
    *,
    overwrite: bool = False,
    beside: Mapping[str, bytes] | None = None,
) -> int:
    """Write ``checkpoint`` as a folder and return the bytes of its ``model.safetensors``.

    The folder appears whole. ``config.json`` repeats the file's header, and says ``"model_type": "daukit"``; the
    ``model.safetensors`` is an ordinary daukit file, which needs no other.

    Args:
        checkpoint: the network.
        folder: to be made; or one that is there, with ``overwrite``.
        overwrite: replace both files where they exist.
        beside: further files by name, replaced likewise.

    Raises:
        OutputError: the folder exists and ``overwrite`` is False, or it cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir():
        for name in (MODEL, CONFIG):
            check_output(folder / name, overwrite=overwrite)
        return _write_all(checkpoint, folder, overwrite, beside or {})
    with new_folder(folder) as temporary:
        size = _write_all(checkpoint, temporary, False, beside or {})
    return size


def _write_all(checkpoint: Checkpoint, folder: Path, overwrite: bool, beside: Mapping[str, bytes]) -> int:
    size = write(checkpoint, folder / MODEL, overwrite=overwrite)
    with CheckpointFile(folder / MODEL) as file:
        config = {"model_type": _KIND, **json.loads(file.metadata[METADATA_KEY])}
    write_atomic(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode(), overwrite=overwrite)
    for name, data in beside.items():
        write_atomic(folder / name, data, overwrite=overwrite)
    return size


@dataclass(frozen=True)
class Source:
    """The place of a network's tensors.

    Attributes:
        path: the file that was named, or the one of the folder that says where the tensors are.
        parts: the files with tensors.
        place: {tensor name: its file}, where there are several.
        said: the folder's ``config.json``: a daukit header, or the options of a network of others.
    """

    path: Path
    parts: tuple[Path, ...]
    place: Mapping[str, Path] = field(default_factory=dict)
    said: Header | Mapping[str, Any] = field(default_factory=dict)


def locate(path: Path) -> Source:
    """Locate the tensors of a file, an index of several files, or a folder.

    Raises:
        CheckpointError: there is no such file, a folder has no tensors, or an index is damaged.
    """
    try:
        return _located(path)
    except OSError as error:  # a name that is too long, a folder that may not be listed, a disk that fails
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def _located(path: Path) -> Source:
    if not path.is_dir():
        _check_kind(path)
        check_readable(path)
        return _indexed(path, read_config(path.parent)) if path.name in INDICES else Source(path, (path,))
    said = read_config(path)
    for name in (MODEL, f"{MODEL}{_INDEX}", PICKLE, f"{PICKLE}{_INDEX}"):
        if (path / name).exists():
            check_readable(path / name)
            return _indexed(path / name, said) if name in INDICES else Source(path / name, (path / name,), said=said)
    _check_kind(path)
    if list(path.glob("model-*.safetensors")):
        raise CheckpointError(
            f"{path}: its tensors lie in several files, and {MODEL}{_INDEX}, which says where, is missing"
        )
    raise CheckpointError(f"{path}: is a folder without {MODEL} or {PICKLE}; name a checkpoint")


def _check_kind(path: Path) -> None:
    """Raise ``CheckpointError`` where ``path`` is, or begins the names of, files that importers read."""
    if path.is_dir():
        made_by = "TensorFlow" if (path / "checkpoint").is_file() or any(path.glob("*.index")) else None
    elif path.exists():
        made_by = _MAKERS.get(path.suffix)
    else:
        made_by = "TensorFlow" if path.with_name(f"{path.name}.index").is_file() else None
    if made_by is not None:
        how = in_words_of_caller("daukit.importers.import_checkpoint()", "daukit convert")
        raise CheckpointError(
            f"{path}: is a {'folder' if path.is_dir() else 'checkpoint'} of {made_by}'s; {how} reads it"
        )


def _indexed(path: Path, said: Header | Mapping[str, Any]) -> Source:
    index = parse_json(read_text(path, error=CheckpointError), path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{path}: has no weight_map from tensors to files; the index is damaged")
    for name, file in places.items():
        # A plain name: the index is not to choose what else on this computer is opened.
        if (
            not isinstance(file, str)
            or not file.endswith((".safetensors", ".bin"))
            or set(file) & {"/", "\\", ":", "\0"}
        ):
            raise CheckpointError(
                f"{path}: says that {name!r} lies in {in_short(file)}; it must be a file's name, in the same folder"
            )
    parts = tuple(path.parent / file for file in sorted(set(places.values())))
    for part in parts:
        check_readable(part)
    return Source(path, parts, {name: path.parent / file for name, file in places.items()}, said)


def read_config(folder: Path) -> Header | dict[str, Any]:
    """Read ``config.json``: a daukit header, or the options of a network of others; {} without that file.

    Raises:
        CheckpointError: it is no JSON object, or a damaged header.
    """
    path = folder / CONFIG
    if not path.exists():
        return {}
    check_readable(path)
    text = read_text(path, error=CheckpointError)
    config = parse_json(text, path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: holds {type(config).__name__}, not a JSON object with the network's options")
    return Header.from_json(text, path) if config.get("model_type") == _KIND else config
