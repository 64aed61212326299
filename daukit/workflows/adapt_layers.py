"""Layers of one network for another: those of a classifier for segmentation, on finer maps (sections 4.3 and 6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from daukit.checkpoint import Checkpoint, Given, build_model, taken
from daukit.errors import CheckpointError, in_words_of_caller, naming
from daukit.models.callables import Factory
from daukit.models.structure import apply_differences, describe
from daukit.nn import DAUConv2d
from daukit.rescale import Ratio, dau_change, finer_maps, rescale_factors
from daukit.results import Positive, Size
from daukit.workflows.adapt_fit import find_pairs, find_scales, layers_of, tensors_of, widened


@dataclass(frozen=True, kw_only=True)
class AdaptedLayer:
    """One layer of a network that has layers of another one. Lengths are in pixels of the map that the layer reads.

    Attributes:
        name: the layer's name.
        type: its class.
        taken_from: the layer of the file whose tensors it has; None: it begins anew.
        type_before: class of that layer; None for a new one. A linear layer may become a convolution.
        factor: number of times that its map is finer than the one that it learnt on; displacements are multiplied by
            it. None: a new layer, one that looks at single values, or the strides of both networks do not tell.
        limit_before: largest displacement per axis that the file's layer allowed; None: no limit, or no DAU layer.
        limit_after: largest displacement per axis that it allows now.
        displacement_before: largest displacement per axis that it held; None: no DAU layer, or no units.
        displacement_after: largest displacement per axis that it holds now.
        dilation_before: dilation (y, x) of the file's layer; 1 for a layer that has none.
        dilation_after: dilation (y, x) now.
        zero: it begins at zero, as the new layer of the classes.
    """

    name: str
    type: str
    taken_from: str | None
    type_before: str | None = None
    factor: Positive | None = None
    limit_before: Positive | None = None
    limit_after: Positive | None = None
    displacement_before: Positive | None = None
    displacement_after: Positive | None = None
    dilation_before: tuple[Size, Size] = (1, 1)
    dilation_after: tuple[Size, Size] = (1, 1)
    zero: bool = False


@dataclass(frozen=True)
class Adapted:
    """A network with layers of another one.

    Attributes:
        network: the network.
        layers: its layers that hold tensors, in its order; none where it is the other network as it was.
        left: names of the other network's layers that found no place.
        history: the other network's, with the multiplication of displacements.
        notes: what a person should know of it, a sentence each.
    """

    network: nn.Module
    layers: tuple[AdaptedLayer, ...] = ()
    left: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the layers that begin anew."""
        return tuple(layer.name for layer in self.layers if layer.taken_from is None)

    @property
    def scaled(self) -> dict[str, float]:
        """Factors of the DAU layers whose displacements were multiplied, by name."""
        daus = [layer for layer in self.layers if layer.type == "DAUConv2d"]
        return {layer.name: layer.factor for layer in daus if layer.factor is not None and layer.factor != 1}


def take_layers(
    network: nn.Module, source: Given, called: str = "the network", *, model: Factory | None = None
) -> Adapted:
    """Give a network all layers of another one's that have the same name and fit.

    A layer is taken whole or not at all. It fits if its tensors have the same shapes; a linear layer also fits a
    convolution with as many weights, which then reads what it read before, at every position (section 4.3). The layers
    of a ResNet are those of a DeepLab's backbone.

    Where a DAU layer reads a finer map than in the other network, its displacements are multiplied by as much, and its
    limit is at least the former one times as much. How much follows from the strides that both networks have
    accumulated before the layer. A 1x1 convolution that comes last and is new begins at zero.

    Args:
        network: with tensors; it is changed in place.
        source: a checkpoint of the other network, a path or a model likewise.
        called: what messages call ``network``.
        model: as in ``daukit.load``, for checkpoints and paths.

    Raises:
        CheckpointError: no layer fits, or none but normalisations, or a DAU layer fits but reads its units otherwise.
    """
    with taken(source, "take_layers", model) as checkpoint:
        return _take_all(network, checkpoint, called, model)


def _take_all(network: nn.Module, checkpoint: Checkpoint, called: str, model: Factory | None) -> Adapted:
    other = build_model(checkpoint, model=model)
    pairs = find_pairs(network, other, checkpoint)
    if all(isinstance(network.get_submodule(name), nn.modules.batchnorm._NormBase) for name in pairs):
        but = " but normalisations" if pairs else ""
        raise CheckpointError(f"{checkpoint.called}: none of its layers{but} fits {called}; is it the right file?")
    try:
        ratios = finer_maps(other, network, pairs)
    except ValueError:  # a forward decides by its input
        ratios = dict.fromkeys(pairs)
    scales = find_scales(network, other, pairs, ratios, checkpoint.called, called)
    factors = {pairs[name]: scale for name, scale in scales.items() if scale != 1}
    given, history, rounded = other, checkpoint.header.history, None
    if factors:
        with naming(checkpoint.called):
            scaled, report = rescale_factors(checkpoint, factors)
        given, history, rounded = build_model(scaled, model=model), scaled.header.history, report.rounded
    apply_differences(network, widened(network, given, pairs))
    for name, source in pairs.items():
        _take(network.get_submodule(name), given.get_submodule(source))
    zero = _zero_last(network, pairs)
    layers = tuple(
        _layer(name, module, pairs.get(name), other, ratios.get(name), zero=name == zero)
        for name, module in layers_of(network).items()
    )
    left = tuple(key for key in layers_of(other) if key not in pairs.values())
    return Adapted(network, layers, left, tuple(history), tuple(_notes(network, layers, rounded, called)))


def _take(module: nn.Module, other: nn.Module) -> None:
    """Copy the tensors of another layer that fits."""
    tensors = tensors_of(other)
    if isinstance(module, nn.Conv2d) and isinstance(other, nn.Linear):
        tensors["weight"] = other.weight.detach().reshape(module.weight.shape)
    with torch.no_grad():
        module.load_state_dict(tensors, strict=False)


def _zero_last(network: nn.Module, pairs: Mapping[str, str]) -> str | None:
    """Make the last layer zero if it is a new 1x1 convolution, which is that of the classes; return its name."""
    name, last = list(layers_of(network).items())[-1]
    if name in pairs or not isinstance(last, nn.Conv2d) or last.kernel_size != (1, 1):
        return None
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return name


def _layer(
    name: str, module: nn.Module, source: str | None, other: nn.Module, ratio: Ratio | None, *, zero: bool
) -> AdaptedLayer:
    if source is None:
        return AdaptedLayer(name=name, type=type(module).__name__, taken_from=None, zero=zero)
    former = other.get_submodule(source)
    factor = ratio[0] if ratio is not None and ratio[0] == ratio[1] else None
    words: dict[str, Any] = {}
    if isinstance(module, DAUConv2d) and isinstance(former, DAUConv2d):
        mu_before, mu_after = (layer.mu.detach().reshape(2, -1) for layer in (former, module))
        before, after = describe(former) or {}, describe(module) or {}
        change = dau_change(name, factor or 1.0, before, after, mu_before=mu_before, mu_after=mu_after)
        keys = ("limit_before", "limit_after", "displacement_before", "displacement_after")
        words = {key: getattr(change, key) for key in keys}
    return AdaptedLayer(
        name=name,
        type=type(module).__name__,
        taken_from=source,
        type_before=type(former).__name__,
        factor=factor,
        dilation_before=_dilation(former),
        dilation_after=_dilation(module),
        **words,
    )


def _dilation(module: nn.Module) -> tuple[int, int]:
    y, x = module.dilation if isinstance(module, DAUConv2d | nn.Conv2d) else (1, 1)
    return y, x


def _notes(network: nn.Module, layers: tuple[AdaptedLayer, ...], rounded: float | None, called: str) -> Iterator[str]:
    """Say what may not be as it was meant."""
    taken = [layer for layer in layers if layer.taken_from is not None]
    unknown = [layer.name for layer in taken if layer.type == "DAUConv2d" and layer.factor is None]
    if unknown:
        how = in_words_of_caller("daukit.rescale_factors", "daukit rescale --factor")
        yield (
            f"whether {', '.join(unknown)} read finer maps in {called} cannot be told, as its strides or the file's "
            f"are not known there; their displacements are taken as they are, and {how} multiplies them"
        )
    plain = [layer for layer in taken if layer.factor is not None and _is_window(network.get_submodule(layer.name))]
    narrow = [layer.name for layer in plain if layer.dilation_after != _times(layer.dilation_before, layer.factor)]
    if narrow:
        yield (
            f"{', '.join(narrow)}: convolutions whose dilation in {called} is not the former one times the factor of "
            "their maps, so they read other places than they learnt to"
        )
    if rounded:
        yield (
            f"layers of whole pixels: rounding moved units by up to {rounded:.2g} px from the places that they should "
            "have; whole factors do not"
        )


def _is_window(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)


def _times(dilation: tuple[int, int], factor: float | None) -> tuple[float, float]:
    return dilation[0] * (factor or 1), dilation[1] * (factor or 1)
