"""Selection of the units that stay, and their number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from daukit.checkpoint import LayerUnits
from daukit.errors import CheckpointError
from daukit.pruning.rules import RelativeTo, Rule
from daukit.results import Count, Share


class UnitSource(Protocol):
    """A source of units: a ``Checkpoint``, or a file that is read layer by layer."""

    @property
    def path(self) -> Path | None:
        """The file, if any."""
        ...

    @property
    def layer_names(self) -> list[str]:
        """The DAU layers, in the network's order."""
        ...

    def layer(self, name: str) -> LayerUnits:
        """The units of one layer, checked."""
        ...


@dataclass(frozen=True)
class LayerCount:
    """Units of one layer before and after pruning.

    Attributes:
        name: name of the layer.
        units_before: units before.
        units_after: units after.
        threshold: units with |w| below this share of their reference go; null without a threshold.
    """

    name: str
    units_before: Count
    units_after: Count
    threshold: Share | None


@dataclass(frozen=True)
class PruneReport:
    """The units that pruning removed.

    Attributes:
        rule: what was asked for.
        layers: one count per layer, in the network's order.
        least_kept: for a budget: the smallest share of its reference that a unit which stays has; None if none stays.
        ties: for a budget: units of exactly that share that went; of equal units the first in the file go first.
    """

    rule: Rule
    layers: tuple[LayerCount, ...]
    least_kept: float | None = None
    ties: int | None = None

    @property
    def units_before(self) -> int:
        """Units of the whole network before."""
        return sum(layer.units_before for layer in self.layers)

    @property
    def units_after(self) -> int:
        """Units of the whole network after."""
        return sum(layer.units_after for layer in self.layers)

    @property
    def units_by_layer(self) -> dict[str, tuple[int, int]]:
        """{layer: its units before and after}."""
        return {layer.name: (layer.units_before, layer.units_after) for layer in self.layers}


def select(source: UnitSource, rule: Rule) -> tuple[PruneReport, dict[str, Tensor]]:
    """Select the units of every layer that stay: a bool (units,) by layer, True to keep.

    Raises:
        ValueError: a budget of more units than there are.
        CheckpointError: there is no DAU layer, or none of a name in the rule; or a layer is damaged or holds NaN.
    """
    check_layers(source, rule)
    if rule.is_budget:
        keeps, least, ties = _within_budget(source, rule)
    else:
        least = ties = None
        largest = network_largest(source, rule.relative_to)
        keeps = {}
        for name in source.layer_names:
            layer = source.layer(name)
            size = magnitude(layer)
            keeps[name] = size >= (rule.threshold_of(name) or 0.0) * reference(layer, size, rule.relative_to, largest)
    if rule.seed is not None:
        generator = torch.Generator().manual_seed(rule.seed)
        keeps = {name: _shuffled(keep, generator) for name, keep in keeps.items()}
    counts = (LayerCount(n, k.numel(), int(k.count_nonzero()), rule.threshold_of(n)) for n, k in keeps.items())
    return PruneReport(rule, tuple(counts), least, ties), keeps


def check_layers(source: UnitSource, rule: Rule) -> None:
    """Raise ``CheckpointError`` where there is nothing to prune, or the rule names a layer that is not there."""
    if not source.layer_names:
        raise CheckpointError(
            f"{source.path or 'the model'}: its network has no DAU layers, so there are no units to prune"
        )
    for name in rule.layer_thresholds:
        if name not in source.layer_names:
            source.layer(name)  # says which layers there are, and the nearest match


def magnitude(layer: LayerUnits) -> Tensor:
    """``|w|`` of every unit: (units,), in float64, so that a threshold means the same number for every file."""
    return layer.weight.abs().double()


def network_largest(source: UnitSource, relative_to: RelativeTo) -> float:
    """The largest ``|w|`` of the network, where the reference is the network's; else 0, which is not used."""
    if relative_to != "network":
        return 0.0
    weights = (source.layer(name).weight for name in source.layer_names)
    return max((float(weight.abs().max()) for weight in weights if weight.numel()), default=0.0)


def reference(layer: LayerUnits, size: Tensor, relative_to: RelativeTo, largest: float) -> Tensor:
    """The value that each unit's ``size``, its ``|w|``, is compared with: (units,), or one element that all share."""
    if relative_to == "network":
        return size.new_tensor(largest)
    if relative_to == "layer" or not size.numel():
        return size.max() if size.numel() else size
    owner = layer.pair if relative_to == "filter" else layer.pair // layer.inputs_per_group
    return size.new_zeros(int(layer.counts.numel())).scatter_reduce(0, owner, size, "amax")[owner]


def _within_budget(source: UnitSource, rule: Rule) -> tuple[dict[str, Tensor], float | None, int]:
    """Keep the units of the largest share of their reference; also the least share kept, and how many like it went."""
    largest = network_largest(source, rule.relative_to)
    parts = {}
    for name in source.layer_names:
        layer = source.layer(name)
        size = magnitude(layer)
        base = reference(layer, size, rule.relative_to, largest)
        # Where all are zero no threshold removes any, so a budget takes them last.
        parts[name] = torch.where(base > 0, size / base, 1.0)
    shares = torch.cat(list(parts.values()))
    removed = rule.removed(shares.numel())
    ascending, order = shares.sort(stable=True)
    keep = torch.ones_like(shares, dtype=torch.bool)
    keep[order[:removed]] = False
    kept = dict(zip(parts, keep.split([part.numel() for part in parts.values()]), strict=True))
    if removed == shares.numel():
        return kept, None, 0
    least = float(ascending[removed])
    return kept, least, int((ascending[:removed] == least).count_nonzero())


def _shuffled(keep: Tensor, generator: torch.Generator) -> Tensor:
    """As many units to keep as in ``keep``, chosen at random."""
    chosen = torch.zeros_like(keep)
    chosen[torch.randperm(keep.numel(), generator=generator)[: int(keep.count_nonzero())]] = True
    return chosen
