"""Sizes of the weights of a network's units: what thresholds of pruning are shares of (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daukit.checkpoint import Checkpoint, takes_any
from daukit.offsets.histograms import QUANTILES, Array
from daukit.offsets.units import choose_groups

BINS = 50
"""Bins between zero and the largest ``|w|``: each is a step of 0.02 of a threshold."""

THRESHOLDS = (0.01, 0.02, 0.05, 0.1)
"""Shares of the largest ``|w|``, as one would prune by."""


@dataclass(frozen=True)
class LayerWeights:
    """Sizes of the weights of a layer.

    Attributes:
        name: the layer's name.
        units: how many it has.
        largest: largest ``|w|``; None without units.
        mean: mean ``|w|``; None likewise.
        quantiles: {share of the units: the least ``|w|`` up to which so many lie}; None likewise.
        below: {share of the largest ``|w|``: share of the units below it}; None likewise, or where all are zero.
        edges: (bins + 1,), from zero to the largest ``|w|``.
        counts: (bins,), units by size; the last bin holds the largest, too.
    """

    name: str
    units: int
    largest: float | None
    mean: float | None
    quantiles: dict[float, float] | None
    below: dict[float, float] | None
    edges: Array
    counts: Array


@takes_any
def weight_distributions(checkpoint: Checkpoint, layers: Sequence[str] | None = None) -> list[LayerWeights]:
    """Measure the sizes of weights per layer.

    Args:
        checkpoint: any daukit file, dense or pruned, read or by its path; or a model.
        layers: names of layers; default: every DAU layer.

    Raises:
        CheckpointError: the network has no DAU layer, or none of that name, or a layer is damaged or holds NaN.
    """
    return [_weights(checkpoint, name) for name in choose_groups(checkpoint, layers, "layer", ())]


def _weights(checkpoint: Checkpoint, name: str) -> LayerWeights:
    size = np.sort(checkpoint.layer(name).weight.double().abs().numpy())
    if not size.size:
        return LayerWeights(name, 0, None, None, None, None, np.linspace(0, 1, BINS + 1), np.zeros(BINS))
    largest = float(size[-1])
    counts, edges = np.histogram(size, BINS, (0, largest or 1.0))
    below = {share: float(np.mean(size < share * largest)) for share in THRESHOLDS} if largest else None
    quantiles = {share: float(size[np.ceil(share * size.size).astype(int) - 1]) for share in QUANTILES}
    return LayerWeights(
        name, size.size, largest, float(size.mean()), quantiles, below, edges, counts.astype(np.float64)
    )
