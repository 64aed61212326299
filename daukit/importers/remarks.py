"""Remarks on what an importer guessed or changed, and the changes that several importers make."""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.errors import CheckpointError


class Remarks:
    """Remarks on layers; layers with the same remark share one sentence."""

    def __init__(self) -> None:
        self._layers: dict[str, list[str]] = {}

    def add(self, sentence: str, name: str) -> None:
        """Add a remark on the layer or tensor ``name``."""
        names = self._layers.setdefault(sentence, [])
        if name not in names:
            names.append(name)

    def sentences(self) -> list[str]:
        """All remarks, each behind the names of its layers."""
        return [f"{', '.join(names)}: {sentence}" for sentence, names in self._layers.items()]


def clipped(mu: Tensor, limit: float, name: str, remarks: Remarks) -> Tensor:
    """Clip displacements (2, O, C, K) to ``limit`` pixels on each axis, and remark how many were beyond it."""
    outside = int((mu.abs() > limit).any(0).sum())
    if outside:
        units = mu[0].numel()
        remarks.add(
            f"{outside:,} of {units:,} units lay beyond the limit and were clipped to it, as the source does", name
        )
    return mu.clamp(-limit, limit)


def single_precision(tensor: Tensor, key: str, name: str, where: str, remarks: Remarks) -> Tensor:
    """Convert a layer's tensor to float32, which daukit's layers compute in, and remark if that rounds.

    Args:
        tensor: of floating-point numbers.
        key: what it is in its layer, for the error.
        name: of the layer, for the remark.
        where: names the layer in errors.
        remarks: takes the remark.

    Raises:
        CheckpointError: it holds no floating-point numbers, or some that float32 cannot hold.
    """
    if not tensor.is_floating_point():
        raise CheckpointError(f"{where}: {key} is of {str(tensor.dtype).removeprefix('torch.')}, not of float numbers")
    rounded = tensor.float()
    if tensor.dtype == torch.float64 and not torch.equal(rounded.double(), tensor):
        if bool((rounded.isinf() & tensor.isfinite()).any()):
            raise CheckpointError(f"{where}: {key} holds numbers beyond float32's largest, 3.4e38")
        remarks.add("stored in double precision, rounded to single", name)
    return rounded
