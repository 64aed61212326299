"""The traced network: which modules stride, what its nodes hold, and the tracer that leaves DAU layers whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from daukit.errors import in_words_of_caller
from daukit.models import tracing
from daukit.models.usercode import calling
from daukit.nn import DAUConv2d

Pool = nn.MaxPool2d | nn.AvgPool2d

GLOBAL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PADS = (nn.ConstantPad2d, nn.ZeroPad2d)
WINDOWED = (DAUConv2d, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *PADS)


def trace(model: nn.Module) -> fx.Graph:
    """The graph of ``model``, with DAU layers and padded pools whole.

    Raises:
        ValueError: the network's forward cannot be traced.
    """
    otherwise = "Factors per layer need no trace: " + in_words_of_caller("rescale_factors", "--factor LAYER=2")
    return tracing.trace(model, "removing pools", otherwise, lambda module: pool_of(module) is not None)


def pool_of(module: nn.Module) -> Pool | None:
    """The pool that ``module`` is, bare or behind its own padding with -inf; None for other modules."""
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return module
    if type(module) is nn.Sequential and len(module) == 2:
        pad, pool = module
        if isinstance(pad, nn.ConstantPad2d) and pad.value == float("-inf") and isinstance(pool, nn.MaxPool2d):
            return pool
    return None


def step_of(module: nn.Module) -> tuple[int, int]:
    """The stride of a pool, a convolution or a DAU layer, as (y, x); (1, 1) for every other module."""
    strided = pool_of(module) or module
    if isinstance(strided, DAUConv2d | nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return pair(strided.stride)
    return 1, 1


def values_at(model: nn.Module, graph: fx.Graph, nodes: Collection[str], input: Tensor) -> dict[str, Tensor]:
    """Run ``model`` on ``input`` and return what the graph's nodes of these names hold.

    Raises:
        NetworkError: the network's forward fails on such an input.
    """
    recorder = _Recorder(model, graph, nodes)
    with torch.no_grad(), calling(model, input):
        recorder.run(input)
    return recorder.values


def pair(value: int | Iterable[int]) -> tuple[int, int]:
    """A size that may be given once for both axes, as (y, x)."""
    y, x = (value, value) if isinstance(value, int) else value
    return y, x


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps what the wanted nodes hold."""

    def __init__(self, model: nn.Module, graph: fx.Graph, nodes: Collection[str]) -> None:
        super().__init__(model, graph=graph)
        self.nodes = nodes
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.nodes:
            self.values[n.name] = result
        return result
