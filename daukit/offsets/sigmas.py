"""Distributions of a network's sigmas and of their changes (paper, section 4.1, Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from daukit.checkpoint import Checkpoint, Given, LayerUnits, taken, takes_any
from daukit.errors import CheckpointError
from daukit.offsets.filters import KEEP, FilterRule, WeightFilter, weight_filters
from daukit.offsets.histograms import BINS, Array, bin_of, mean, quantiles, round_up
from daukit.offsets.units import Group, choose_groups, matching_layer


@dataclass(frozen=True)
class ValueDistribution:
    """The values of the units that one filter keeps.

    Attributes:
        weight_filter: the filter.
        units: how many it keeps.
        mean: their mean, weighted by ``|w|``; None where all kept weights are zero.
        density: (bins,); its integral is 1, or 0 where all kept weights are zero.
    """

    weight_filter: WeightFilter
    units: int
    mean: float | None
    density: Array

    @property
    def label(self) -> str:
        """The filter in words."""
        return self.weight_filter.label


@dataclass(frozen=True)
class Values:
    """One number per unit, or its change, in pixels and weighted by ``|w|``.

    Attributes:
        mean: over all units; None where all weights are zero.
        quantiles: {share: the least value up to which that share of the sum of ``|w|`` lies}; None likewise.
        low: the least, high: the greatest; None where there is no unit.
        edges: (bins + 1,).
        distributions: one per weight filter.
    """

    mean: float | None
    quantiles: dict[float, float] | None
    low: float | None
    high: float | None
    edges: Array
    distributions: tuple[ValueDistribution, ...]


@dataclass(frozen=True)
class LayerSigmas:
    """The sigmas of one layer, or of a group of layers.

    Attributes:
        name: the layer's name, or the group's.
        layers: names of the layers whose units these are.
        units: how many there are.
        per_unit: whether a layer has a sigma per unit, not one for all.
        now: the sigmas.
        before: those of the other file, with the same edges and weights; None without one.
        change: now less before; None likewise.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    per_unit: bool
    now: Values
    before: Values | None
    change: Values | None


@takes_any
def sigma_distributions(
    checkpoint: Checkpoint,
    layers: Sequence[str] | None = None,
    *,
    before: Given | None = None,
    rule: FilterRule = "keep-top",
    shares: Sequence[float] = KEEP,
    bins: int = BINS,
    group: Group = "layer",
    stages: Sequence[str] = (),
) -> list[LayerSigmas]:
    """Measure the distribution of sigmas, and of their changes since ``before``: the numbers behind Fig. 4.

    A layer with one sigma counts it for each of its units. Sigmas are in dilated pixels, as files hold them. The other
    arguments, and what is raised, are as in ``displacement_changes``.
    """
    filters = weight_filters(rule, shares, bins)
    groups = choose_groups(checkpoint, layers, group, stages)
    with nullcontext() if before is None else taken(before, "sigma_distributions") as start:
        return [_sigmas(checkpoint, start, *item, filters, bins) for item in groups.items()]


def _sigmas(
    checkpoint: Checkpoint,
    before: Checkpoint | None,
    name: str,
    layers: Sequence[str],
    filters: Sequence[WeightFilter],
    bins: int,
) -> LayerSigmas:
    parts = [checkpoint.layer(layer) for layer in layers]
    weight = np.concatenate([part.weight.double().abs().numpy() for part in parts])
    now = np.concatenate([_sigma(checkpoint, part) for part in parts])
    then = None
    if before is not None:
        pairs = [matching_layer(checkpoint, before, layer) for layer in layers]
        then = np.concatenate([_sigma(before, part) for _, part in pairs])
    edges = _edges(now if then is None else np.concatenate([now, then]), bins)
    change = None if then is None else now - then
    return LayerSigmas(
        name=name,
        layers=tuple(layers),
        units=weight.size,
        per_unit=any(part.description["form"] == "gaussian" for part in parts),
        now=_values(now, weight, edges, filters),
        before=None if then is None else _values(then, weight, edges, filters),
        change=None if change is None else _values(change, weight, _symmetric_edges(change, bins), filters),
    )


def _sigma(checkpoint: Checkpoint, layer: LayerUnits) -> Array:
    """The sigma of every unit: (units,)."""
    units, tensor = layer.weight.numel(), checkpoint.tensors.get(f"{layer.name}.sigma")
    if tensor is None:
        fixed = layer.description["sigma"]
        if fixed is None:
            raise CheckpointError(
                f"{checkpoint.called}: layer {layer.name!r}: there is no {layer.name + '.sigma'!r}; the file is damaged"
            )
        return np.full(units, float(fixed))
    needed = units if layer.description["form"] == "gaussian" else 1
    if tensor.numel() != needed:
        raise CheckpointError(
            f"{checkpoint.called}: layer {layer.name!r}: {tensor.numel()} sigmas for {units} units, of which "
            f"{needed} were expected; the file is damaged"
        )
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise CheckpointError(
            f"{checkpoint.called}: layer {layer.name!r}: {bad} of {tensor.numel()} values of sigma are NaN or infinite"
        )
    return np.broadcast_to(tensor.flatten().double().numpy(), units)


def _edges(values: Array, bins: int) -> Array:
    """Tenths of a pixel that hold all values."""
    if not values.size:
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = math.floor(10 * float(values.min())) / 10, math.ceil(10 * float(values.max())) / 10
    return np.linspace(low, max(high, low + 0.1), bins + 1)


def _symmetric_edges(values: Array, bins: int) -> Array:
    half = round_up(float(np.abs(values).max(initial=0.0)))
    return np.linspace(-half, half, bins + 1)


def _values(values: Array, weight: Array, edges: Array, filters: Sequence[WeightFilter]) -> Values:
    width, ascending = float(edges[1] - edges[0]), np.sort(weight)
    bin, distributions = bin_of(values, edges), []
    for weight_filter in filters:
        keep = weight >= weight_filter.threshold(ascending)
        mass = np.bincount(bin[keep], weight[keep], len(edges) - 1)
        density = mass / ((float(mass.sum()) or 1.0) * width)
        distributions.append(
            ValueDistribution(weight_filter, int(keep.sum()), mean(values[keep], weight[keep]), density)
        )
    low, high = (float(values.min()), float(values.max())) if values.size else (None, None)
    return Values(mean(values, weight), quantiles(values, weight), low, high, edges, tuple(distributions))
