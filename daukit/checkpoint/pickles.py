"""State dicts that torch.save wrote: read as data, never run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from daukit.errors import CheckpointError


def is_pickle(path: Path) -> bool:
    """Whether torch.save wrote it: a zip archive, or the older bare pickle, which opens with the PROTO opcode."""
    with path.open("rb") as file:
        first = file.read(9)
    if first[8:] == b"{":  # safetensors: the length of a JSON header, then the header; the length may look like PROTO
        return False
    return _is_archive(path) or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # some damage raises instead of answering
        return True


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read a state dict, bare or under ``model`` or ``state_dict``.

    Raises:
        CheckpointError: the file is damaged, holds something else, or its pickle asks for code to be run.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: its pickle is damaged or asks for code to be run, and daukit never runs code from a file; "
            "save only model.state_dict() and try again"
        ) from None
    except (RuntimeError, EOFError, LookupError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a complete torch file ({reason})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        raise CheckpointError(f"{path}: does not hold a state dict of tensors, bare or under 'model' or 'state_dict'")
    return dict(data)
