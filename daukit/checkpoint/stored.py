"""Tensors as a file holds them: those with several names once, and displacements on whole pixels as small integers.

What is written is made here, and so is what is read: in memory displacements are floating-point numbers everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from daukit.checkpoint.header import Header
from daukit.errors import CheckpointError

_TYPES = (torch.int8, torch.int16)


def whole_names(header: Header | None) -> set[str]:
    """Names of the displacements that may be stored as integers: those of layers that read at whole pixels."""
    if header is None:
        return set()
    return {f"{layer['name']}.mu" for layer in header.layers if layer.get("whole_pixels", False)}


def tied_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are, in the same memory, the same as one of an earlier name: {name: earlier name}."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(same, name) != name:
            tied[name] = first[same]
    return tied


def to_store(tensors: dict[str, Tensor], header: Header, tied: Collection[tuple[str, str]] = ()) -> dict[str, Tensor]:
    """The tensors as a file of ``header`` holds them.

    Displacements of a layer that reads at whole pixels become integers where all of them are whole, as after training.

    Args:
        tensors: by name.
        header: the file's.
        tied: (other name, name) of tensors that the file holds once; if one of them must stay as it is, all do.

    Raises:
        CheckpointError: a whole displacement is farther than integers of 16 bits reach.
    """
    names = whole_names(header)
    names -= {owner for other, owner in tied if other not in names}
    return {name: as_stored(tensor, name) if name in names else tensor for name, tensor in tensors.items()}


def as_read(tensor: Tensor, name: str, names: Collection[str]) -> Tensor:
    """A file's tensor called ``name`` as it is in memory: displacements of one of ``names`` are numbers again."""
    return tensor.float() if name in names and tensor.dtype in _TYPES else tensor


def as_stored(mu: Tensor, name: str) -> Tensor:
    """``mu`` of a layer that reads at whole pixels, called ``name``, as a file holds it; errors as in ``to_store``."""
    if not mu.is_floating_point() or not bool((mu.isfinite() & (mu == mu.round())).all()):
        return mu
    farthest = int(mu.abs().max()) if mu.numel() else 0
    for dtype in _TYPES:
        if farthest <= torch.iinfo(dtype).max:
            return mu.to(dtype)
    raise CheckpointError(
        f"layer {name.removesuffix('.mu')!r}: a unit reads {farthest:,} pixels away, and a file holds displacements on "
        f"whole pixels up to {torch.iinfo(_TYPES[-1]).max:,}; remove the units beyond the map, which read only zeros"
    )
