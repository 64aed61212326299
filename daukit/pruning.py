"""Prune units by their weight (paper, section 4.2, Table 2). Works on files; needs no model class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, LayerUnits
from daukit.errors import CheckpointError
from daukit.models.structure import Description

RelativeTo = Literal["layer", "channel", "network", "filter"]
RELATIVE_TO: tuple[RelativeTo, ...] = ("layer", "channel", "network", "filter")


@dataclass(frozen=True)
class LayerCount:
    """Units of one layer before and after."""

    name: str
    units_before: int
    units_after: int


@dataclass(frozen=True)
class PruneReport:
    """What pruning removed."""

    threshold: float
    relative_to: RelativeTo
    layers: tuple[LayerCount, ...]

    @property
    def units_before(self) -> int:
        """Units of the whole network before."""
        return sum(layer.units_before for layer in self.layers)

    @property
    def units_after(self) -> int:
        """Units of the whole network after."""
        return sum(layer.units_after for layer in self.layers)


def prune(
    checkpoint: Checkpoint, threshold: float, relative_to: RelativeTo = "layer"
) -> tuple[Checkpoint, PruneReport]:
    """Remove the units with ``|w| < threshold * reference``, strictly: 0 removes nothing.

    The reference is the largest ``|w|`` of the unit's ``layer``, of its output ``channel``, of the ``network``, or of
    its ``filter`` (one output-input pair). Every pruned layer becomes ragged: its units are really gone from
    the tensors.

    Args:
        checkpoint: what to prune; it is not changed.
        threshold: share of the reference, within [0, 1].
        relative_to: what the threshold is relative to.

    Returns:
        The pruned checkpoint and what was removed.

    Raises:
        ValueError: the threshold is outside [0, 1], or ``relative_to`` is unknown.
        CheckpointError: a layer's tensors are damaged or hold NaN.
    """
    report, keeps = _select(checkpoint, threshold, relative_to)
    tensors, modules, layers = dict(checkpoint.tensors), dict(checkpoint.header.modules), []
    for description in checkpoint.header.layers:
        name = description["name"]
        layer, keep = checkpoint.layer(name), keeps[name]
        if bool(keep.all()):
            layers.append(description)
            continue
        tensors.update(_ragged_tensors(checkpoint, layer, keep))
        layers.append({**description, "ragged": True})
        modules[name] = {"type": description["type"], **modules.get(name, {}), "ragged": True}
    pruned = checkpoint.derive(
        "prune", {"threshold": threshold, "relative_to": relative_to}, modules=modules, layers=layers
    )
    return Checkpoint(pruned.header, tensors), report


def sweep(checkpoint: Checkpoint, thresholds: Sequence[float], relative_to: RelativeTo = "layer") -> list[PruneReport]:
    """What ``prune`` would remove at every threshold (the unit counts of the paper's Table 2)."""
    return [_select(checkpoint, threshold, relative_to)[0] for threshold in thresholds]


def _select(checkpoint: Checkpoint, threshold: float, relative_to: RelativeTo) -> tuple[PruneReport, dict[str, Tensor]]:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be within [0, 1], got {threshold}")
    if relative_to not in RELATIVE_TO:
        raise ValueError(f"relative_to must be one of {', '.join(RELATIVE_TO)}, got {relative_to!r}")
    layers = [checkpoint.layer(name) for name in checkpoint.layer_names]
    if not layers:
        raise CheckpointError(f"{checkpoint.path}: its network has no DAU layers, so there are no units to prune")
    largest = max((float(layer.weight.abs().max()) for layer in layers if layer.weight.numel()), default=0.0)
    # In float64, so that a threshold means the same number for every file.
    counts, keeps = [], {}
    for layer in layers:
        keep = layer.weight.abs().double() >= threshold * _reference(layer, relative_to, largest)
        keeps[layer.name] = keep
        counts.append(LayerCount(layer.name, keep.numel(), int(keep.sum())))
    return PruneReport(threshold, relative_to, tuple(counts)), keeps


def _reference(layer: LayerUnits, relative_to: RelativeTo, network: float) -> Tensor:
    """What each unit's weight is compared with: (units,), or one element that all share."""
    size = layer.weight.abs().double()
    if relative_to == "network":
        return size.new_tensor(network)
    if relative_to == "layer" or not size.numel():
        return size.max() if size.numel() else size
    owner = layer.pair if relative_to == "filter" else layer.pair // layer.inputs_per_group
    largest = size.new_zeros(int(layer.counts.numel())).scatter_reduce(0, owner, size, "amax")
    return largest[owner]


def _ragged_tensors(checkpoint: Checkpoint, layer: LayerUnits, keep: Tensor) -> dict[str, Tensor]:
    """The layer's tensors with only the units to keep, as a ragged layer stores them."""
    counts = torch.bincount(layer.pair[keep], minlength=layer.counts.numel())
    small = counts.numel() == 0 or int(counts.max()) < 256
    tensors = {
        f"{layer.name}.weight": layer.weight[keep],
        f"{layer.name}.mu": layer.mu[:, keep].contiguous(),
        f"{layer.name}.unit_counts": counts.to(torch.uint8 if small else torch.uint16),
    }
    if _has_unit_sigma(layer.description):
        tensors[f"{layer.name}.sigma"] = checkpoint.tensors[f"{layer.name}.sigma"].flatten()[keep]
    return tensors


def _has_unit_sigma(description: Description) -> bool:
    return bool(description["form"] == "gaussian")
