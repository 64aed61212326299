"""Scores of units, by which pruning compares them: the weight, a random number, the loss, or one of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from daukit.checkpoint import Checkpoint, LayerUnits, build_model
from daukit.limits import check_type
from daukit.models.callables import Factory
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.pruning.rules import MAGNITUDE, RANDOM

Score = Callable[[nn.Module, str, DAUConv2d], Tensor]
"""Called with a network, the name of one of its layers and the layer; returns a tensor shaped like its weight."""

Scores = Mapping[str, Tensor]
"""The scores of all units by layer, in the order of the weights."""

Sizes = Callable[[LayerUnits], Tensor]
"""The scores of a layer's units as pruning compares them: (units,), float64, none of them negative."""


def magnitude(layer: LayerUnits) -> Tensor:
    """``|w|`` of every unit: (units,), in float64, so that a threshold means the same number for every file."""
    return layer.weight.abs().double()


def drawn(seed: int, layers: Iterable[LayerUnits]) -> dict[str, Tensor]:
    """Random scores, uniform in [0, 1), in the order of the layers."""
    generator = torch.Generator().manual_seed(seed)
    return {layer.name: torch.rand(layer.weight.numel(), generator=generator, dtype=torch.float64) for layer in layers}


def taylor(network: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score units by how much the loss would change without them, to first order: ``sum |w dL/dw|`` over the losses.

    Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, for one weight instead of a filter.

    Args:
        network: its parameters get no gradients, and keep their ``requires_grad``.
        losses: one loss after another, each computed with ``network`` when it is asked for; sums over images, so that
            batches of other sizes count as they should.

    Returns:
        By name of each DAU layer, a tensor shaped like its weight, in float64. Zero where no loss depends on it. Empty,
        with no loss computed, where the network has no DAU layer.

    Raises:
        ValueError: there are no losses.
    """
    layers = dau_layers(network)
    if not layers:
        return {}
    weights = [layer.weight for layer in layers.values()]
    totals = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    learned = {parameter: parameter.requires_grad for parameter in network.parameters()}
    batches = 0
    try:
        for parameter in learned:
            parameter.requires_grad_(any(parameter is weight for weight in weights))
        for loss in losses:
            batches += 1
            grads = torch.autograd.grad(loss, weights, allow_unused=True)
            for total, weight, grad in zip(totals, weights, grads, strict=True):
                if grad is not None:
                    total += (weight.detach() * grad).abs()
    finally:
        for parameter, was in learned.items():
            parameter.requires_grad_(was)
    if not batches:
        raise ValueError("there are no losses to score units by; give at least one batch of images")
    return dict(zip(layers, totals, strict=True))


def name_of(score: str | Score | Scores) -> str:
    """The name of a score in a file's history; a function's ends in brackets, so that it is none of daukit's."""
    if isinstance(score, str):
        if score not in (MAGNITUDE, RANDOM):
            raise ValueError(
                f'score must be "{MAGNITUDE}", "{RANDOM}", a function or a mapping of layers to scores, got {score!r}'
            )
        return score
    return "given" if isinstance(score, Mapping) else f"{getattr(score, '__name__', type(score).__name__)}()"


def sizes_by(checkpoint: Checkpoint, score: Score | Scores, model: Factory | None = None) -> Sizes:
    """The scores of a checkpoint's units, checked.

    Args:
        checkpoint: its network is built where ``score`` is a function.
        score: the function, or what it would return for every layer.
        model: as in ``daukit.load``.

    Raises:
        TypeError: a score is no tensor, or ``score`` is neither.
        ValueError: it has another shape than the weights, or a value that is negative or not finite.
        CheckpointError: the network cannot be built.
    """
    if isinstance(score, Mapping):
        given = dict(score)
    else:
        check_type(score, callable, "score must be a name, a function or a mapping of layers to scores")
        network = build_model(checkpoint, model=model)
        given = {name: score(network, name, layer) for name, layer in dau_layers(network).items()}

    def sizes(layer: LayerUnits) -> Tensor:
        found = given.get(layer.name)
        if not isinstance(found, Tensor):
            raise TypeError(f"the score of layer {layer.name!r} must be a tensor, got {type(found).__name__}")
        shape = checkpoint.tensors[f"{layer.name}.weight"].shape
        if found.shape != shape:
            raise ValueError(f"the score of layer {layer.name!r} is {tuple(found.shape)}, its weight {tuple(shape)}")
        flat = found.detach().cpu().double().flatten()
        if not bool((flat.isfinite() & (flat >= 0)).all()):
            raise ValueError(f"the score of layer {layer.name!r} has values that are negative or not finite")
        return flat

    return sizes
