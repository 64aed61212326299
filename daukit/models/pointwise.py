"""What looks at one position of a map at a time, judged by its arguments, not by its name alone."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

from daukit.models.replacing import why_kept
from daukit.models.tracing import call_name

PER_CHANNEL: tuple[type[nn.Module], ...] = (
    nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU,
    nn.Sigmoid, nn.Tanh, nn.Hardswish,
)  # fmt: skip
"""Modules that look at one position of one channel."""
PER_POSITION = (*PER_CHANNEL, nn.PReLU, nn.LocalResponseNorm)
"""Modules that look at one position of all channels."""
_CALLS = (
    "add", "iadd", "sub", "mul", "imul", "truediv", "cat", "contiguous", "dropout", "expand_as",
    "relu", "relu_", "leaky_relu", "gelu", "silu", "sigmoid", "tanh",
)  # fmt: skip
_RANDOM = (nn.Dropout, nn.Dropout2d)


def why_not_pointwise(module: nn.Module) -> str | None:
    """Why a module of ``PER_POSITION`` does not look at one position at a time, or None where it does."""
    kept = why_kept(module, *PER_POSITION)
    if kept is not None:
        return kept
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
        return "it has no running statistics, so it normalises over the whole map"
    if isinstance(module, (nn.BatchNorm2d, *_RANDOM)) and module.training:  # a network may override train()
        return "it stays in training mode when the network does not"
    return None


def is_pointwise_call(node: fx.Node) -> bool:
    """Whether a node calls a function or method that looks at one position, if ``why_not_pointwise_call`` agrees."""
    return call_name(node) in _CALLS and is_torch_call(node)


def why_not_pointwise_call(node: fx.Node, is_flat: bool = False) -> str | None:
    """Why a call of ``is_pointwise_call`` does not look at one position at a time, by its arguments; None if it does.

    Args:
        node: the call.
        is_flat: whether it gets vectors (N, C), where a map is to come.
    """
    called = call_name(node)
    if called == "cat":
        dim = _argument(node, 1, ("dim", "axis"), 0)
        if dim not in ((0, 1) if is_flat else (0, 1, -3, -4)):
            return f"it joins maps along axis {dim}, not along their channels"
    if called == "dropout":
        training, share = _argument(node, 2, ("training", "train"), True), _argument(node, 1, ("p",), 0.5)
        if training is not False and share != 0:
            return "it drops values in eval mode too (training=True)"
    return None


def is_torch_call(node: fx.Node) -> bool:
    """Whether a node calls a method of a tensor, or a function that is torch's or Python's own, not a namesake."""
    name = call_name(node)
    homes = (operator, torch, F)
    return node.op == "call_method" or any(getattr(home, name, None) is node.target for home in homes)


def _argument(node: fx.Node, position: int, names: tuple[str, ...], default: object) -> object:
    named = next((node.kwargs[name] for name in names if name in node.kwargs), default)
    return node.args[position] if len(node.args) > position else named
