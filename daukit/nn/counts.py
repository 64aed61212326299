"""Units of every pair, in the smallest integers that a file has for them."""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.errors import CheckpointError

_TYPES = (torch.uint8, torch.uint16)


def stored_counts(counts: Tensor, layer: str) -> Tensor:
    """``counts`` (pairs,) of ``layer`` in the smallest of the unsigned types that a ragged layer is stored in.

    Raises:
        CheckpointError: a pair has more units than the largest of them can tell.
    """
    largest = int(counts.max()) if counts.numel() else 0
    for dtype in _TYPES:
        if largest <= torch.iinfo(dtype).max:
            return counts.to(dtype)
    limit = torch.iinfo(_TYPES[-1]).max
    raise CheckpointError(
        f"layer {layer!r}: a pair would keep {largest:,} units, and a ragged layer holds at most {limit:,} in a pair; "
        "remove more units"
    )
