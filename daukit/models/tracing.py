"""A network as a graph of its modules, DAU layers whole."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx, nn

from daukit.models.usercode import FAILURES, in_one_line
from daukit.nn import DAUConv2d


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
            return isinstance(m, DAUConv2d) or is_whole(m) or super().is_leaf_module(m, module_qualified_name)

    try:
        return Tracer().trace(network)
    except FAILURES as error:
        raise ValueError(
            f"cannot trace the network ({in_one_line(error)}); {purpose} needs a forward that decides nothing by its "
            f"input. {otherwise}"
        ) from error


def call_name(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
