"""Folders as the Hugging Face hub lays them out: ``config.json`` beside ``model.safetensors``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from daukit.checkpoint.file import CheckpointFile, check_readable, write
from daukit.checkpoint.header import METADATA_KEY, Header
from daukit.checkpoint.memory import Checkpoint
from daukit.errors import CheckpointError, OutputError
from daukit.files import check_output, write_atomic

MODEL, CONFIG = "model.safetensors", "config.json"
_KIND = "daukit"


def write_folder(checkpoint: Checkpoint, folder: str | Path, *, overwrite: bool = False) -> int:
    """Write ``checkpoint`` as a folder and return the bytes of its ``model.safetensors``.

    The folder appears whole. ``config.json`` repeats the file's header, and says ``"model_type": "daukit"``; the
    ``model.safetensors`` is an ordinary daukit file, which needs no other.

    Raises:
        OutputError: the folder exists and ``overwrite`` is False, or it cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir():
        for name in (MODEL, CONFIG):
            check_output(folder / name, overwrite=overwrite)
        return _write_both(checkpoint, folder, overwrite)
    check_output(folder, overwrite=False)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        size = _write_both(checkpoint, whole, overwrite=False)
        try:
            whole.rename(folder)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}; nothing was changed") from None
    return size


def _write_both(checkpoint: Checkpoint, folder: Path, overwrite: bool) -> int:
    size = write(checkpoint, folder / MODEL, overwrite=overwrite)
    with CheckpointFile(folder / MODEL) as file:
        config = {"model_type": _KIND, **json.loads(file.metadata[METADATA_KEY])}
    write_atomic(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode(), overwrite=overwrite)
    return size


def model_file(folder: Path) -> Path:
    """The tensors' file of a folder.

    Raises:
        CheckpointError: the folder has none, or has it in several parts.
    """
    path = folder / MODEL
    if not path.exists() and list(folder.glob("model-*.safetensors")):
        raise CheckpointError(f"{folder}: its tensors lie in several files; join them into one {MODEL} first")
    if not path.exists():
        raise CheckpointError(f"{folder}: is a folder without {MODEL}; name a checkpoint")
    return path


def read_config(folder: Path) -> Header | dict[str, Any]:
    """What ``config.json`` says: a daukit header, or the options of somebody else's network; {} without that file.

    Raises:
        CheckpointError: it is no JSON object, or a damaged header.
    """
    path = folder / CONFIG
    if not path.exists():
        return {}
    check_readable(path)
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: holds {type(config).__name__}, not a JSON object with the network's options")
    return Header.from_json(text, path) if config.get("model_type") == _KIND else config
