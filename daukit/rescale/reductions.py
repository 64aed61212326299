"""Accumulated strides: how many pixels of the input lie between neighbours of every map, in one network or in two."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from daukit.models import graph as graphs
from daukit.models.effects import GLOBAL_POOLS, KEEPING_RESOLUTION, effect_of, is_pointwise_call
from daukit.rescale.operands import is_size
from daukit.rescale.strided import has_window, pool_of, stride_of

Reduction = tuple[int, int]
Ratio = tuple[float, float]

_WHOLE: Reduction = (0, 0)
"""Of a value of a whole map, which has no neighbours, and stands beside maps of any resolution."""


def finer_maps(coarse: nn.Module, fine: nn.Module, names: Mapping[str, str]) -> dict[str, Ratio | None]:
    """By how much the map that a layer reads is finer in one network than in another.

    Args:
        coarse: the one network.
        fine: the other one.
        names: {name of a layer in ``fine``: its name in ``coarse``}.

    Returns:
        {name in ``fine``: ratio along (y, x), below 1 for a coarser map}; None where a network's strides do not tell
        it, as behind global pools and resizings, and for layers without a window that are not linear.

    Raises:
        ValueError: a network cannot be traced.
    """
    before, after = (reductions(network, _trace(network)) for network in (coarse, fine))
    ratios: dict[str, Ratio | None] = {}
    for name, former in names.items():
        here, there = after.get(name), before.get(former)
        ratios[name] = None if here is None or there is None else (there[0] / here[0], there[1] / here[1])
    return ratios


def _trace(network: nn.Module) -> fx.Graph:
    otherwise = "Its strides are not known"
    return graphs.trace(network, "counting strides", otherwise, lambda module: pool_of(module) is not None)


def reductions(model: nn.Module, graph: fx.Graph) -> dict[str, Reduction | None]:
    """{module with a window, or linear layer: input pixels (y, x) per step of the map it reads, None where unknown}."""
    maps: dict[fx.Node, Reduction | None] = {}
    found: dict[str, Reduction | None] = {}
    for node in graph.nodes:
        read = {maps[source] for source in node.all_input_nodes if source in maps}
        if node.op == "placeholder":
            maps[node] = (1, 1)
        if node.op == "output" or is_size(node) or not read:
            continue
        if len(read) > 1:
            read.discard(_WHOLE)
        reduction = read.pop() if len(read) == 1 else None
        module = graphs.module_of(model, node)
        if effect_of(node, module) in GLOBAL_POOLS:
            maps[node] = _WHOLE
        elif module is None:
            is_kept = is_pointwise_call(node) or effect_of(node, None) in KEEPING_RESOLUTION
            maps[node] = reduction if is_kept else None
        else:
            maps[node] = _behind(module, reduction)
        if module is not None and is_counted(module):
            name, known = str(node.target), None if reduction == _WHOLE else reduction
            found[name] = known if found.setdefault(name, known) == known else None
    return found


def _behind(module: nn.Module, reduction: Reduction | None) -> Reduction | None:
    """The reduction of what a module makes of a map."""
    if reduction is None or not (is_counted(module) or type(module) in KEEPING_RESOLUTION):
        return None
    stride = stride_of(module)
    return reduction[0] * stride[0], reduction[1] * stride[1]


def is_counted(module: nn.Module) -> bool:
    """Tell modules with a window and linear layers, which read a map of some resolution."""
    return has_window(module) or type(module) is nn.Linear
