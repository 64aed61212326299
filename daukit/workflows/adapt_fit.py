"""Which layers of one network are those of another, what their displacements are multiplied by, and how far they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from daukit.checkpoint import Checkpoint
from daukit.errors import CheckpointError, NetworkError, in_words_of_caller
from daukit.limits import in_short
from daukit.models import graph as graphs
from daukit.models.descriptions import LEFT_OUT
from daukit.models.inputs import known_input_size, noise_for
from daukit.models.structure import Description, dau_layers, describe
from daukit.nn import DAUConv2d
from daukit.rescale import Ratio

_BACKBONE = "backbone."
"""Where DeepLab has the layers of its ResNet."""
_FITTING = ("in_channels", "out_channels", "groups")
_FREE = {*_FITTING, "units", "bias", "ragged", "initialization", "mu_gradient"}
"""Options in which DAU layers may differ, one of which takes over the tensors of the other."""
_OF_RESOLUTION = {"max_displacement", "window", "stride", "dilation"}
"""Options in which they may differ where it is known by how much the one's map is finer than the other's."""


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold tensors themselves, by name, in the network's order."""
    return {key: module for key, module in network.named_modules() if tensors_of(module)}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics of a module itself, without those of modules inside of it."""
    return {key: tensor for key, tensor in module.state_dict().items() if "." not in key}


def find_pairs(network: nn.Module, other: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """Find the layers of a network that take over one of another's: {layer: the other's}, in the network's order.

    Args:
        network: the one that takes.
        other: the one that gives.
        checkpoint: what ``other`` was built from.

    Raises:
        CheckpointError: a DAU layer fits, but has another sigma or form.
    """
    layers = layers_of(other)
    pairs: dict[str, str] = {}
    for key, module in layers_of(network).items():
        source = key if key in layers else key.removeprefix(_BACKBONE)
        if source not in layers or source in pairs.values():
            continue
        if not _fits(module, layers[source], f"{checkpoint.called}: layer {source!r}"):
            continue
        if isinstance(module, nn.Conv2d) and isinstance(layers[source], nn.Linear):
            if not _reads_window(module, other, source, checkpoint):
                continue
        pairs[key] = source
    return pairs


def _fits(module: nn.Module, other: nn.Module, called: str) -> bool:
    if isinstance(module, DAUConv2d) != isinstance(other, DAUConv2d):
        return False
    if isinstance(module, DAUConv2d) and isinstance(other, DAUConv2d):
        if any(getattr(module, key) != getattr(other, key) for key in _FITTING):
            return False
        for key, here, there in _differences(module, other):
            if key not in _OF_RESOLUTION:
                raise CheckpointError(f"{called} has {key} {in_short(there)}, and {in_short(here)} here")
        if other.is_ragged:
            return True
    mine, tensors = tensors_of(module), tensors_of(other)
    if isinstance(module, nn.Conv2d) and isinstance(other, nn.Linear):
        is_window = module.out_channels == other.out_features and module.weight.numel() == other.weight.numel()
        return is_window and mine.keys() == tensors.keys()
    return {key: tensor.shape for key, tensor in mine.items()} == {k: t.shape for k, t in tensors.items()}


def _differences(module: DAUConv2d, other: DAUConv2d) -> list[tuple[str, Any, Any]]:
    """Options that matter to what is read, where they differ: (name, of ``module``, of ``other``)."""
    here, there = _described(module), _described(other)
    kept = _FREE if here["whole_pixels"] else {*_FREE, "whole_pixels"}  # which the module would take over
    return [(key, here[key], there[key]) for key in sorted(here) if key not in kept and here[key] != there[key]]


def _described(layer: DAUConv2d) -> Description:
    return {**LEFT_OUT, **(describe(layer) or {})}


def _reads_window(conv: nn.Conv2d, other: nn.Module, source: str, checkpoint: Checkpoint) -> bool:
    """Tell whether a linear layer read a map of the convolution's window; True where the file does not say it."""
    size = known_input_size(checkpoint.header.architecture, checkpoint.header.preprocessing)
    if conv.kernel_size == (1, 1) or size is None:
        return True
    try:
        graph = graphs.trace(other, "finding what a linear layer reads", "")
        node = next(node for node in graph.nodes if node.op == "call_module" and node.target == source)
        behind = []
        while node.all_input_nodes:
            node = node.all_input_nodes[0]
            behind.append(node.name)
        values = graphs.values_at(other, graph, behind, noise_for(other, 1, size, 0))
    except (ValueError, NetworkError, StopIteration):
        return True
    shape = next(values[name].shape for name in behind if values[name].dim() == 4)
    return tuple(shape[1:]) == (conv.in_channels, *conv.kernel_size)


def find_scales(
    network: nn.Module,
    other: nn.Module,
    pairs: Mapping[str, str],
    ratios: Mapping[str, Ratio | None],
    file: str,
    called: str,
) -> dict[str, float]:
    """Find what to multiply mu by in every DAU layer that takes over another: {layer: factor}.

    Args:
        network: as in ``find_pairs``.
        other: likewise.
        pairs: from there.
        ratios: by how much the map that a layer reads is finer in ``network``; None or nothing where it is not known.
        file: what messages call the checkpoint of ``other``.
        called: what they call ``network``.

    Raises:
        CheckpointError: a map is finer along one axis than along the other; or the layers read their units otherwise,
            and it is not known by how much maps are finer.
    """
    scales: dict[str, float] = {}
    for name, layer in dau_layers(network).items():
        if name not in pairs:
            continue
        former, ratio = other.get_submodule(pairs[name]), ratios.get(name)
        assert isinstance(former, DAUConv2d)
        where = f"{file}: layer {pairs[name]!r}"
        if ratio is None:
            _check_alike(layer, former, where, called)
            continue
        axes = {r * old / new for r, old, new in zip(ratio, former.dilation, layer.dilation, strict=True)}
        if len(axes) > 1:
            along = " and ".join(f"{scale:g}" for scale in ratio)
            raise CheckpointError(
                f"{where} would read a map that is {along} times finer along y and x in {called}, and displacements "
                "have one factor for both axes"
            )
        scales[name] = axes.pop()
    return scales


def _check_alike(layer: DAUConv2d, former: DAUConv2d, where: str, called: str) -> None:
    """Refuse units that may be read elsewhere, where strides do not tell by how much maps are finer."""
    differs = _differences(layer, former)
    if not differs:
        return
    key, here, there = next((found for found in differs if found[0] == "max_displacement"), differs[0])
    how = in_words_of_caller("daukit.rescale", "daukit rescale --remove-pool")
    advice = f"; {how} first, as {called} has finer maps there" if key in ("max_displacement", "dilation") else ""
    raise CheckpointError(f"{where} has {key} {in_short(there)}, and {in_short(here)} here{advice}")


def widened(network: nn.Module, other: nn.Module, pairs: Mapping[str, str]) -> dict[str, Description]:
    """Changes to DAU layers that make room for the displacements to come, as ``apply_differences`` takes them.

    Limits and windows are the larger ones of both networks. A layer that takes over units at whole pixels reads there.
    """
    changed: dict[str, Description] = {}
    for name, layer in dau_layers(network).items():
        former = other.get_submodule(pairs[name]) if name in pairs else None
        if not isinstance(former, DAUConv2d):
            continue
        here, there = _described(layer), _described(former)
        wanted: Description = {key: _wider(here[key], there[key]) for key in ("max_displacement", "window")}
        wanted["whole_pixels"] = here["whole_pixels"] or there["whole_pixels"]
        if any(here[key] != value for key, value in wanted.items()):
            changed[name] = {"type": here["type"], **wanted}
    return changed


def _wider(here: float | None, there: float | None) -> float | None:
    """The larger of two limits, where None is no limit; of two windows likewise, which both layers have or neither."""
    return None if here is None or there is None else max(here, there)
