"""Magnitude pruning: which weights of several layers become zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.limits import check_type, either, is_flag, is_none, is_number


@dataclass(frozen=True)
class Magnitude:
    """The weights that become zero besides those that are: small ones, or a share of all.

    Attributes:
        threshold: a weight goes when ``|w| < threshold``; this is no share of a maximum.
        sparsity: share of zeros that a layer has afterwards, at least; the smallest weights go first.
        everywhere: ``sparsity`` is the share over all layers together, not of each.

    Raises:
        TypeError: a value of another type.
        ValueError: both a threshold and a sparsity, a value outside its range, or ``everywhere`` without a sparsity.
    """

    threshold: float | None = None
    sparsity: float | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "sparsity"):
            check_type(getattr(self, name), either(is_none, is_number), f"{name} must be a number")
        check_type(self.everywhere, is_flag, "everywhere must be True or False")
        if self.threshold is not None and self.sparsity is not None:
            raise ValueError(f"give one of threshold={self.threshold} and sparsity={self.sparsity}")
        if self.threshold is not None and not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold must be a finite number of at least 0, got {self.threshold}")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity must be within [0, 1], got {self.sparsity}")
        if self.everywhere and self.sparsity is None:
            raise ValueError("everywhere goes with a sparsity")


@torch.no_grad()
def pruned(weights: Mapping[str, Tensor], rule: Magnitude) -> dict[str, Tensor]:
    """``weights`` by layer with zeros where ``rule`` wants them; of equal magnitudes the first ones go first."""
    if rule.threshold is not None:
        return {name: weight.masked_fill(weight.abs() < rule.threshold, 0) for name, weight in weights.items()}
    if rule.sparsity is None or not weights:
        return dict(weights)
    if not rule.everywhere:
        return {
            name: _without_smallest(weight.flatten(), rule.sparsity).view_as(weight) for name, weight in weights.items()
        }
    flat = _without_smallest(torch.cat([weight.double().flatten() for weight in weights.values()]), rule.sparsity)
    parts = flat.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight).to(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _without_smallest(weight: Tensor, share: float) -> Tensor:
    """``weight`` (numbers,) with zeros in place of this share of its numbers, to the nearest one."""
    smallest = weight.abs().argsort(stable=True)[: round(share * weight.numel())]
    return weight.index_fill(0, smallest, 0)
