"""Networks that begin with the layers of another network, as a segmentation network with those of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import Dataset
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.limits import in_short
from daukit.models import record_of
from daukit.models.structure import describe
from daukit.nn import DAUConv2d
from daukit.workflows.train_networks import loaded_network, new_network

_BACKBONE = "backbone."
"""Where DeepLab has the layers of its ResNet."""
_FITTING = ("in_channels", "out_channels", "groups")
_FREE = {*_FITTING, "units", "bias", "ragged", "initialization", "mu_gradient"}
"""Options in which DAU layers may differ, one of which takes over the tensors of the other."""


@dataclass(frozen=True)
class Adapted:
    """A network with layers of another one.

    Attributes:
        network: the network.
        new: names of its layers that begin anew.
        left: names of the other network's layers that found no place.
    """

    network: nn.Module
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def adapted_network(
    name: str, config: Mapping[str, Any], images: Dataset, checkpoint: Checkpoint, *, model: str | None = None
) -> Adapted:
    """Build a new network and give it all layers of a checkpoint's that have the same name and fit.

    A layer is taken whole or not at all. It fits if its tensors have the same shapes; a linear layer also fits a
    convolution with as many weights, which then reads what it read before, at every position (section 4.3). The layers
    of a ResNet are those of a DeepLab's backbone. A checkpoint of the very same network is taken as it is.

    Args:
        name: the network, as in ``new_network``.
        config: its options, likewise.
        images: to learn from.
        checkpoint: the other network, of which input is normalised as it was.
        model: as in ``daukit.load``, for the checkpoint.

    Raises:
        CheckpointError: no layer fits, or a DAU layer fits but reads its units otherwise, as on finer maps.
    """
    network = new_network(name, config, images)
    record = record_of(network)
    assert record is not None and record.preprocessing is not None  # new_network set them
    if record.architecture == checkpoint.header.architecture:
        return Adapted(loaded_network(checkpoint, images, model=model))
    other = build_model(checkpoint, model=model)
    layers = {key: module for key, module in other.named_modules() if _tensors(module)}
    new, taken = [], set()
    for key, module in network.named_modules():
        if not _tensors(module):
            continue
        source = key if key in layers else key.removeprefix(_BACKBONE)
        if source in layers and _take(module, layers[source], f"{checkpoint.called}: layer {source!r}", name):
            taken.add(source)
        else:
            new.append(key)
    if not taken:
        raise CheckpointError(f"{checkpoint.called}: none of its layers fits {name}; is it the right file?")
    fed, expected = checkpoint.header.preprocessing, record.preprocessing
    if fed is not None and len(fed.mean) == len(expected.mean):
        record.preprocessing = replace(
            expected, mean=fed.mean, std=fed.std, channel_order=fed.channel_order, value_range=fed.value_range
        )
    record.history = list(checkpoint.header.history)
    return Adapted(network, tuple(new), tuple(key for key in layers if key not in taken))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics of a module itself, without those of modules inside of it."""
    return {key: tensor for key, tensor in module.state_dict().items() if "." not in key}


def _take(module: nn.Module, other: nn.Module, called: str, network: str) -> bool:
    """Copy the tensors of another layer, if they fit."""
    if isinstance(module, DAUConv2d) != isinstance(other, DAUConv2d):
        return False
    if isinstance(module, DAUConv2d) and isinstance(other, DAUConv2d):
        if any(getattr(module, key) != getattr(other, key) for key in _FITTING):
            return False
        _check_reading(module, other, called, network)
    mine, tensors = _tensors(module), _tensors(other)
    if isinstance(module, nn.Conv2d) and isinstance(other, nn.Linear):
        is_window = module.out_channels == other.out_features and module.weight.numel() == other.weight.numel()
        tensors["weight"] = other.weight.detach().reshape(module.weight.shape) if is_window else other.weight
    ragged = isinstance(other, DAUConv2d) and other.is_ragged
    if not ragged and {k: t.shape for k, t in mine.items()} != {k: t.shape for k, t in tensors.items()}:
        return False
    with torch.no_grad():
        module.load_state_dict(tensors, strict=False)
    return True


def _check_reading(module: DAUConv2d, other: DAUConv2d, called: str, network: str) -> None:
    """Refuse units that would be read elsewhere, or with another blur."""
    here, there = describe(module) or {}, describe(other) or {}
    differs = [key for key in here.keys() | there.keys() if key not in _FREE and here.get(key) != there.get(key)]
    if not differs:
        return
    key = "max_displacement" if "max_displacement" in differs else min(differs)
    how = in_words_of_caller("daukit.rescale", "daukit rescale --remove-pool")
    advice = f"; {how} first, as {network} has finer maps there" if key in ("max_displacement", "dilation") else ""
    raise CheckpointError(f"{called} has {key} {in_short(there.get(key))}, and {in_short(here.get(key))} here{advice}")
