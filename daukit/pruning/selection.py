"""Selection of the units that stay, and their number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from daukit.checkpoint import LayerUnits
from daukit.errors import CheckpointError
from daukit.pruning.budgets import Costs, within_cost
from daukit.pruning.rules import RANDOM, RelativeTo, Rule
from daukit.pruning.scores import Sizes, drawn, magnitude
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
        threshold: units with a score below this share of their reference go; null without a threshold.
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
        ties: for a budget of units: units of exactly that share that went; of equal units the first in the file go
            first.
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


def select(
    source: UnitSource, rule: Rule, sizes: Sizes = magnitude, costs: Costs | None = None
) -> tuple[PruneReport, dict[str, Tensor]]:
    """Select the units of every layer that stay: a bool (units,) by layer, True to keep.

    Args:
        source: of the units.
        rule: which of them go.
        sizes: the scores that the rule compares; ``score="random"`` draws its own.
        costs: what units cost, for a budget of multiply-adds or of time.

    Raises:
        ValueError: a budget of more units than there are, or of less cost than can be reached.
        CheckpointError: there is no DAU layer, or none of a name in the rule; or a layer is damaged or holds NaN.
    """
    check_layers(source, rule)
    sizes = sizes_of(source, rule, sizes)
    least, ties = None, None
    keeps: dict[str, Tensor] = {}
    if rule.is_budget:
        keeps, least, ties = _within_budget(source, rule, sizes, costs)
    else:
        largest = network_largest(source, rule.relative_to, sizes)
        for name in source.layer_names:
            layer = source.layer(name)
            size = sizes(layer)
            keeps[name] = size >= (rule.threshold_of(name) or 0.0) * reference(layer, size, rule.relative_to, largest)
    if rule.seed is not None and rule.score != RANDOM:
        generator = torch.Generator().manual_seed(rule.seed)
        keeps = {name: _shuffled(keep, generator) for name, keep in keeps.items()}
    counts = (LayerCount(n, k.numel(), int(k.count_nonzero()), rule.threshold_of(n)) for n, k in keeps.items())
    return PruneReport(rule, tuple(counts), least, ties), keeps


def sizes_of(source: UnitSource, rule: Rule, sizes: Sizes) -> Sizes:
    """The scores that a rule compares: those given, or those that it draws."""
    if rule.score != RANDOM:
        return sizes
    assert rule.seed is not None  # by the rule's own check
    scores = drawn(rule.seed, map(source.layer, source.layer_names))
    return lambda layer: scores[layer.name]


def check_layers(source: UnitSource, rule: Rule) -> None:
    """Raise ``CheckpointError`` where there is nothing to prune, or the rule names a layer that is not there."""
    if not source.layer_names:
        raise CheckpointError(
            f"{source.path or 'the model'}: its network has no DAU layers, so there are no units to prune"
        )
    for name in rule.layer_thresholds:
        if name not in source.layer_names:
            source.layer(name)  # says which layers there are, and the nearest match


def network_largest(source: UnitSource, relative_to: RelativeTo, sizes: Sizes = magnitude) -> float:
    """The largest score of the network, where the reference is the network's; else 0, which is not used."""
    if relative_to != "network":
        return 0.0
    found = (sizes(source.layer(name)) for name in source.layer_names)
    return max((float(size.max()) for size in found if size.numel()), default=0.0)


def reference(layer: LayerUnits, size: Tensor, relative_to: RelativeTo, largest: float) -> Tensor:
    """The value that each unit's ``size``, its score, is compared with: (units,), or one element that all share."""
    if relative_to == "network":
        return size.new_tensor(largest)
    if relative_to == "layer" or not size.numel():
        return size.max() if size.numel() else size
    owner = layer.pair if relative_to == "filter" else layer.pair // layer.inputs_per_group
    return size.new_zeros(int(layer.counts.numel())).scatter_reduce(0, owner, size, "amax")[owner]


def _within_budget(
    source: UnitSource, rule: Rule, sizes: Sizes, costs: Costs | None
) -> tuple[dict[str, Tensor], float | None, int | None]:
    """Keep the units of the largest share of their reference; also the least share kept, and how many like it went."""
    largest = network_largest(source, rule.relative_to, sizes)
    parts = {}
    for name in source.layer_names:
        layer = source.layer(name)
        size = sizes(layer)
        base = reference(layer, size, rule.relative_to, largest)
        # Where all are zero no threshold removes any, so a budget takes them last.
        parts[name] = torch.where(base > 0, size / base, 1.0)
    shares = torch.cat(list(parts.values()))
    if rule.is_of_cost:
        if costs is None:
            raise ValueError("a budget of multiply-adds or time needs costs; daukit.workflows.prune finds them")
        keep, ties = within_cost(parts, costs), None
    else:
        keep, ties = _largest(shares, rule.removed(shares.numel()))
    kept = dict(zip(parts, keep.split([part.numel() for part in parts.values()]), strict=True))
    return kept, float(shares[keep].min()) if bool(keep.any()) else None, ties


def _largest(shares: Tensor, removed: int) -> tuple[Tensor, int]:
    """All but ``removed`` units, the smallest ones, and how many went that equal the smallest of the others."""
    ascending, order = shares.sort(stable=True)
    keep = torch.ones_like(shares, dtype=torch.bool)
    keep[order[:removed]] = False
    least = ascending[removed : removed + 1]
    return keep, int((ascending[:removed] == least).count_nonzero()) if least.numel() else 0


def _shuffled(keep: Tensor, generator: torch.Generator) -> Tensor:
    """As many units to keep as in ``keep``, chosen at random."""
    chosen = torch.zeros_like(keep)
    chosen[torch.randperm(keep.numel(), generator=generator)[: int(keep.count_nonzero())]] = True
    return chosen
