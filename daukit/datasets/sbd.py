"""The masks of Hariharan et al. (2011), called SBD: MATLAB files, which scipy reads. Nothing in them is run."""

from __future__ import annotations

import struct
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from daukit.errors import DataError
from daukit.pictures import hushed

MAX_BYTES = 2**26
"""Bounds what a part of a file may unpack to, far above what those of SBD do."""

_COMPRESSED = 15  # a type of elements


def check_scipy(path: Path) -> None:
    """Raise ``DataError`` if scipy is missing, which reads ``path``; it is not imported."""
    if find_spec("scipy") is None:
        raise DataError(f'{path}: is read by scipy, which is not installed: pip install "daukit[train]"')


def read_sbd_mask(path: Path) -> Tensor:
    """Read the label of each pixel, (H, W) uint8: the ``Segmentation`` of the struct ``GTcls``.

    Raises:
        DataError: the file cannot be read or holds something else, or scipy is missing.
    """
    check_scipy(path)
    from scipy.io import loadmat

    try:
        content = _small(path.read_bytes())
        with hushed():
            found = loadmat(BytesIO(content), variable_names=["GTcls"], struct_as_record=False)
            labels = found["GTcls"][0, 0].Segmentation
    except Exception as error:  # readers raise errors of any type at damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as a mask of SBD, GTcls.Segmentation of a MATLAB file ({reason}); copy it again"
        ) from error
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 2:
        kind = f"{labels.dtype} of {labels.ndim} axes" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise DataError(f"{path}: its GTcls.Segmentation is {kind}, and must be uint8 of height and width")
    return torch.from_numpy(np.ascontiguousarray(labels))


def _small(content: bytes) -> bytes:
    """The same bytes, those of a MATLAB file, unless one of its elements unpacks to more than ``MAX_BYTES``.

    Raises:
        ValueError: one does.
    """
    order = ">" if content[126:128] == b"MI" else "<"
    start = 128
    while start + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, start)
        start += 8
        if (
            kind == _COMPRESSED
            and len(zlib.decompressobj().decompress(content[start : start + length], MAX_BYTES)) == MAX_BYTES
        ):
            raise ValueError(f"unpacks to more than {MAX_BYTES:,} bytes")
        start += length
    return content
