"""The masks of Hariharan et al. (2011), called SBD: MATLAB files, which scipy reads. Nothing in them is run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from daukit.errors import DataError
from daukit.pictures import hushed


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
        with hushed():
            found = loadmat(path, variable_names=["GTcls"], struct_as_record=False, appendmat=False)
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
