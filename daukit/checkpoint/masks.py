"""Masks of ``torch.nn.utils.prune`` in state dicts: the weights that they leave, by the name of the layer's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from daukit.errors import CheckpointError

_MASK, _ORIGINAL = "_mask", "_orig"


def with_masks_applied(
    tensors: dict[str, Tensor], own: Collection[str], path: Path | str
) -> tuple[dict[str, Tensor], int]:
    """``tensors`` with ``conv.weight`` in the place of ``conv.weight_orig`` and ``conv.weight_mask``, and their number.

    Args:
        tensors: by the file's names.
        own: names of the network's tensors; one that has masks itself takes the file's as they are.
        path: the file, for messages.

    Raises:
        CheckpointError: a mask has another shape than its weights.
    """
    if any(name.endswith(_ORIGINAL) and name.removesuffix(_ORIGINAL) + _MASK in own for name in own):
        return tensors, 0
    result = dict(tensors)
    names = [name.removesuffix(_MASK) for name in tensors if name.endswith(_MASK)]
    names = [name for name in names if name + _ORIGINAL in tensors and name not in tensors]
    for name in names:
        mask, original = result.pop(name + _MASK), result.pop(name + _ORIGINAL)
        if mask.shape != original.shape:
            raise CheckpointError(
                f"{path}: {name}{_MASK} is {tuple(mask.shape)} and {name}{_ORIGINAL} {tuple(original.shape)}, and a "
                "mask has the shape of what it is of; the file is damaged"
            )
        result[name] = original * mask.to(original.dtype)
    return result, len(names)


def check_no_masks_left(tensors: Collection[str], own: Collection[str], path: Path | str) -> None:
    """Raise ``CheckpointError`` where a mask is among the names in ``tensors``, but not what it is of."""
    for name in tensors:
        if name.endswith(_MASK) and name not in own and name.removesuffix(_MASK) in own:
            raise CheckpointError(
                f"{path}: holds {name}, a mask of torch.nn.utils.prune, without {name.removesuffix(_MASK)}{_ORIGINAL}, "
                "the weights that it is of; save the whole state dict, or make the pruning permanent with prune.remove"
            )
