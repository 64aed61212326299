"""Layers with fewer channels: the same values for those that stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from daukit.models.structure import build, describe
from daukit.nn import DAUConv2d
from daukit.ops.units import pair_of_units

Layer = DAUConv2d | nn.Conv2d | nn.Linear
"""Layers whose channels, before and behind them, can be dropped (Conv2d and DAUConv2d: with one group)."""


@torch.no_grad()
def without_outputs(layer: Layer, keep: Tensor) -> nn.Module:
    """``layer`` with only the output channels ``keep`` (int64)."""
    if isinstance(layer, DAUConv2d):
        return _narrowed_units(layer, outputs=keep)
    key = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    values = {name: tensor[keep] for name, tensor in layer.state_dict().items()}
    return _rebuilt(layer, {key: len(keep)}, values)


@torch.no_grad()
def without_inputs(layer: Layer, keep: Tensor, constants: Tensor) -> nn.Module:
    """``layer`` with only the input channels ``keep`` (int64); its bias stands for the ``constants`` of all of them.

    Args:
        layer: what reads the channels.
        keep: channels to keep.
        constants: (channels,) float64, what the channels that go carry everywhere; 0 for all others. A layer with units
            or padding must have none that it reads.
    """
    if isinstance(layer, DAUConv2d):
        return _narrowed_units(layer, inputs=keep)
    values, weight = dict(layer.state_dict()), by_channel(layer, constants.numel())
    narrow = weight[:, keep]
    if isinstance(layer, nn.Linear):
        values["weight"] = narrow.flatten(1)
        changes: dict[str, object] = {"in_features": values["weight"].shape[1]}
    else:
        values["weight"] = narrow.reshape(-1, len(keep), *layer.kernel_size)
        changes = {"in_channels": len(keep)}
    extra = weight.double().sum(2) @ constants  # (outputs,)
    if bool(extra.any()):
        bias = layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
        values["bias"] = (bias.double() + extra).to(bias.dtype)
        changes["bias"] = True
    return _rebuilt(layer, changes, values)


@torch.no_grad()
def narrowed_norm(norm: nn.BatchNorm2d, keep: Tensor) -> nn.Module:
    """``norm`` for the channels ``keep`` (int64) only."""
    values = {name: tensor[keep] if tensor.dim() else tensor for name, tensor in norm.state_dict().items()}
    return _rebuilt(norm, {"num_features": len(keep)}, values)


def by_channel(layer: nn.Conv2d | nn.Linear, channels: int) -> Tensor:
    """Weights (outputs, channels, weights that read the channel); a linear layer may read several values of each."""
    return layer.weight.detach().reshape(layer.weight.shape[0], channels, -1)


def reads(layer: Layer, channels: int) -> Tensor:
    """The input channels that any weight other than zero reads: bool (channels,)."""
    if isinstance(layer, DAUConv2d):
        pair = pair_of_units(layer.unit_counts)[layer.weight.detach().flatten() != 0]
        return torch.bincount(pair % channels, minlength=channels) > 0
    return (by_channel(layer, channels) != 0).any(2).any(0)


def _narrowed_units(layer: DAUConv2d, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Module:
    outputs = torch.arange(layer.out_channels) if outputs is None else outputs
    inputs = torch.arange(layer.in_channels) if inputs is None else inputs
    values = dict(layer.state_dict())
    if "bias" in values:
        values["bias"] = values["bias"][outputs]
    of_units = ["weight", "mu", *(["sigma"] if layer.form == "gaussian" else [])]
    pairs = outputs[:, None] * layer.in_channels + inputs  # (outputs, inputs)
    if layer.is_ragged:
        stays = torch.zeros(layer.pairs, dtype=torch.bool).index_fill_(0, pairs.flatten(), True)
        wanted = stays[pair_of_units(layer.unit_counts)]
        values |= {name: values[name][..., wanted] for name in of_units}
        values["unit_counts"] = values["unit_counts"].long()[pairs.flatten()].to(values["unit_counts"].dtype)
    else:
        values |= {name: values[name][..., outputs[:, None], inputs, :] for name in of_units}
    return _rebuilt(layer, {"out_channels": len(outputs), "in_channels": len(inputs)}, values)


def _rebuilt(module: nn.Module, changes: dict[str, object], values: dict[str, Tensor]) -> nn.Module:
    """A module like ``module``, with other sizes and values."""
    new = build({**(describe(module) or {}), **changes})
    new.to(next(iter(values.values())).dtype)
    new.load_state_dict(values)
    return new.train(module.training)
