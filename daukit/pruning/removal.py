"""Remove units from a checkpoint: its layers become ragged, and the units are really gone from the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, LayerUnits, derives
from daukit.models.callables import Factory
from daukit.nn.counts import stored_counts
from daukit.pruning.rules import MAGNITUDE, RelativeTo, Rule
from daukit.pruning.scores import Score, Scores, magnitude, name_of, sizes_by
from daukit.pruning.selection import PruneReport, select


@derives
def prune(
    checkpoint: Checkpoint,
    threshold: float | None = None,
    relative_to: RelativeTo = "layer",
    *,
    layer_thresholds: Mapping[str, float] | None = None,
    units: int | None = None,
    remove: float | None = None,
    seed: int | None = None,
    score: str | Score | Scores = MAGNITUDE,
    model: Factory | None = None,
) -> tuple[Checkpoint, PruneReport]:
    """Remove the units with ``score < threshold * reference``, strictly: 0 removes nothing.

    The score is ``|w|``, if nothing else is asked for. The reference is the largest score of the unit's ``layer``, of
    its output ``channel``, of the ``network``, or of its ``filter`` (one output-input pair). Every pruned layer becomes
    ragged: its units are really gone from the tensors. Give thresholds, or ``units``, or ``remove``.

    Args:
        checkpoint: what to prune, a path or a model likewise; it is not changed.
        threshold: share of the reference, within [0, 1].
        relative_to: what a unit is compared with.
        layer_thresholds: thresholds of single layers, in place of ``threshold``.
        units: keep exactly so many units of the network, those of the largest ``score / reference``; of equal ones the
            first in the file go first.
        remove: remove that share of the network's units, to the nearest unit, in the same order.
        seed: as a control, remove as many units of every layer, but chosen at random with this seed. With
            ``score="random"`` the seed of the scores.
        score: what is compared: ``"magnitude"``, ``"random"``, a function of (model, name of a layer, layer) that
            returns a tensor shaped like the layer's weight, or such tensors by layer, as from ``pruning.taylor``.
        model: as in ``daukit.load``, for a ``score`` that is a function.

    Returns:
        The pruned checkpoint and what was removed.

    Raises:
        TypeError: a value of another type.
        ValueError: a value outside its range, not exactly one of thresholds, ``units`` and ``remove``, or scores of
            another shape than the weights, negative or not finite.
        CheckpointError: there is no such layer, a layer's tensors are damaged or hold NaN, or the network cannot be
            built.
    """
    rule = Rule(
        threshold, relative_to, layer_thresholds=layer_thresholds or {}, units=units, remove=remove, seed=seed,
        score=name_of(score),
    )  # fmt: skip
    sizes = magnitude if isinstance(score, str) else sizes_by(checkpoint, score, model)
    report, keeps = select(checkpoint, rule, sizes)
    return remove_units(checkpoint, keeps, "prune", rule.to_json()), report


def remove_units(
    checkpoint: Checkpoint, keeps: Mapping[str, Tensor], operation: str, arguments: Mapping[str, Any]
) -> Checkpoint:
    """A copy with only the units to keep, a bool (units,) by layer; a layer that loses none stays as it is."""
    tensors = dict(checkpoint.tensors)
    for name, keep in keeps.items():
        if not bool(keep.all()):
            tensors.update(ragged_tensors(checkpoint, checkpoint.layer(name), keep))
    changed = [name for name, keep in keeps.items() if not bool(keep.all())]
    return with_ragged_layers(checkpoint, tensors, changed, operation, arguments)


def with_ragged_layers(
    checkpoint: Checkpoint,
    tensors: dict[str, Tensor],
    ragged: list[str],
    operation: str,
    arguments: Mapping[str, Any],
) -> Checkpoint:
    """A copy with other tensors, in which the layers named ``ragged`` are, and with ``operation`` in its history."""
    modules, layers = dict(checkpoint.header.modules), []
    for description in checkpoint.header.layers:
        name = description["name"]
        if name not in ragged:
            layers.append(description)
            continue
        layers.append({**description, "ragged": True})
        modules[name] = {"type": description["type"], **modules.get(name, {}), "ragged": True}
    derived = checkpoint.derive(operation, arguments, modules=modules, layers=layers)
    return Checkpoint(derived.header, tensors, checkpoint.path)


def ragged_tensors(checkpoint: Checkpoint, layer: LayerUnits, keep: Tensor) -> dict[str, Tensor]:
    """The layer's tensors with only the units to keep, as a ragged layer stores them."""
    tensors = {
        f"{layer.name}.weight": layer.weight[keep],
        f"{layer.name}.mu": layer.mu[:, keep].contiguous(),
        f"{layer.name}.unit_counts": unit_counts(layer, keep),
    }
    if layer.description["form"] == "gaussian":
        tensors[f"{layer.name}.sigma"] = checkpoint.tensors[f"{layer.name}.sigma"].flatten()[keep]
    return tensors


def unit_counts(layer: LayerUnits, keep: Tensor) -> Tensor:
    """The number of units that each pair keeps, in the smallest type that a file has for it."""
    return stored_counts(torch.bincount(layer.pair[keep], minlength=layer.counts.numel()), layer.name)
