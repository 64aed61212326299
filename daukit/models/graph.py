"""A network as a graph of its modules and calls, DAU layers whole, and the values that its nodes hold."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from daukit.models.usercode import FAILURES, calling, in_one_line
from daukit.nn import DAUConv2d, DAULinear


def trace(
    network: nn.Module, purpose: str, otherwise: str, is_whole: Callable[[nn.Module], bool] = lambda _: False
) -> fx.Graph:
    """Trace ``network`` by torch.fx.

    Args:
        network: what to trace.
        purpose: what needs the graph, as the beginning of the error's sentence.
        otherwise: what can be done without it, as the error's last sentence.
        is_whole: tells of a module whether it is a node of the graph, beside DAU layers and torch's own.

    Raises:
        ValueError: the network's forward cannot be traced, or is not all that the network does.
    """
    if "forward" in vars(network) or network._forward_hooks or network._forward_pre_hooks:
        raise ValueError(
            f"cannot trace the network: it has hooks, or another forward than its class; {purpose} sees only what its "
            f"class does. {otherwise}"
        )

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            ours = isinstance(m, DAUConv2d | DAULinear)
            return ours or is_whole(m) or super().is_leaf_module(m, module_qualified_name)

    try:
        return Tracer().trace(network)
    except FAILURES as error:
        raise ValueError(
            f"cannot trace the network ({in_one_line(error)}); {purpose} needs a forward that decides nothing by its "
            f"input. {otherwise}"
        ) from error


def called_modules(graph: fx.Graph) -> list[str]:
    """Names of the modules that the network calls, in that order."""
    return list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module"))


def module_of(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None for every other node."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def call_name(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def is_torch_call(node: fx.Node) -> bool:
    """Tell a call of a tensor's method, or of a function of torch's or Python's own, from one of a namesake."""
    name = call_name(node)
    homes = (operator, torch, F)
    return node.op == "call_method" or any(getattr(home, name, None) is node.target for home in homes)


def argument(node: fx.Node, position: int, names: tuple[str, ...], default: object) -> object:
    """An argument of a call, by position or by any of its ``names``; ``default`` where it is not given."""
    named = next((node.kwargs[name] for name in names if name in node.kwargs), default)
    return node.args[position] if len(node.args) > position else named


def evaluate(network: nn.Module, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
    """Compute what a node holds from what its sources hold, ``value_of`` each."""
    if node.op == "get_attr":
        return attrgetter(str(node.target))(network)
    args, kwargs = fx.node.map_arg(node.args, value_of), fx.node.map_arg(node.kwargs, value_of)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    called: Any = module_of(network, node) if node.op == "call_module" else node.target
    return called(*args, **kwargs)


def values_at(network: nn.Module, graph: fx.Graph, nodes: Collection[str], image: Tensor) -> dict[str, Tensor]:
    """Run ``network`` on ``image`` and return what the graph's nodes of these names hold.

    Raises:
        NetworkError: the network's forward fails on such an input.
    """
    recorder = _Recorder(network, graph, nodes)
    with torch.no_grad(), calling(network, image):
        recorder.run(image)
    return recorder.values


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps what the wanted nodes hold."""

    def __init__(self, network: nn.Module, graph: fx.Graph, nodes: Collection[str]) -> None:
        super().__init__(network, graph=graph)
        self.nodes = nodes
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.nodes:
            self.values[n.name] = result
        return result
