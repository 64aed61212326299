"""Budgets of cost: what units cost, by layer, and which of them a network can afford."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Costs:
    """The cost of a network, and what it may be.

    Attributes:
        total: cost of the network with all its units.
        limit: greatest cost of what is left of it.
        whole: cost of which the limit is a share, for messages.
        per_unit: cost of one unit by layer, at least 0.
        unit: word for the cost, as ``"multiply-adds"``.
    """

    total: float
    limit: float
    whole: float
    per_unit: Mapping[str, float]
    unit: str


def within_cost(shares: Mapping[str, Tensor], costs: Costs) -> Tensor:
    """The units to keep, a bool (units of the network,): the least are removed that bring the cost within its limit.

    They go in the order of their share of the reference, as for a budget of units; of equal ones the first go first,
    and units that cost nothing stay. The order is not one of worth per cost: that empties the first layers of a
    network, whose units cost most because their maps are large, and costs far more accuracy (docs/prune.md).

    Args:
        shares: by layer, each unit's share of its reference: (units,), in float64.
        costs: of the network.

    Raises:
        ValueError: the limit lies below the cost without any unit.
    """
    price = torch.cat([torch.full_like(share, costs.per_unit[name]) for name, share in shares.items()])
    keep = torch.ones_like(price, dtype=torch.bool)
    order = torch.where(price > 0, torch.cat(list(shares.values())), torch.inf).sort(stable=True).indices
    spared = price[order].cumsum(0)
    least = costs.total - (float(spared[-1]) if spared.numel() else 0.0)
    if least > costs.limit:
        lowest = math.ceil(1e4 * least / costs.whole) / 1e4  # a share that can be asked for
        raise ValueError(
            f"a share of {costs.limit / costs.whole:.4g} of the network's {round(costs.whole, 2):,.15g} {costs.unit} "
            f"cannot be reached: without any unit {lowest:.4f} of them are left; ask for that or more"
        )
    enough = costs.total - costs.limit
    removed = int((spared < enough).count_nonzero()) + 1 if enough > 0 else 0
    keep[order[:removed]] = False
    return keep
