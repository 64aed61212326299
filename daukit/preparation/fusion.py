"""Finds, in a network's graph, the batch norms and ReLUs that a convolution in front of them can take over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from daukit.models.effects import effect_of, why_not_pointwise
from daukit.models.graph import module_of, trace
from daukit.models.replacing import why_kept
from daukit.nn import DAUConv2d


class Fusion(NamedTuple):
    """The call of a DAU layer or a convolution, and what it can take over: each the only reader of the one before."""

    call: fx.Node
    norm: fx.Node | None
    relu: fx.Node | None


def graph_of(network: nn.Module) -> fx.Graph:
    """The graph of a network in eval mode, for calls with any input.

    Raises:
        ValueError: a graph does not tell what the network does; tracing may then have changed the network.
    """
    before = _values(network)
    graph = trace(network, "fusing layers", "Its DAU layers are prepared one by one.", _is_more_than_its_class)
    if not _same(before, _values(network)):
        raise ValueError("its forward makes tensors or keeps values of its own, which a graph would hold fixed")
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    if any(node.args or str(node.target).startswith("*") for node in arguments):
        raise ValueError("its forward has optional arguments, and a graph would decide about them for all calls")
    return graph


def find_fusions(network: nn.Module, graph: fx.Graph) -> list[Fusion]:
    """Everything that can be fused, DAU layers and plain convolutions."""
    shared = with_other_readers(network, graph)
    found = []
    for node in graph.nodes:
        module = module_of(network, node)
        if module is None or module in shared or why_kept(module, DAUConv2d, nn.Conv2d) is not None:
            continue
        norm = _only_reader(node, lambda reader: _is_norm(module_of(network, reader)))
        relu = None
        if isinstance(module, DAUConv2d) and module.form == "bilinear":
            relu = _only_reader(norm or node, lambda reader: _is_relu(reader, module_of(network, reader)))
        if norm is not None or relu is not None:
            found.append(Fusion(node, norm, relu))
    return found


def _is_more_than_its_class(module: nn.Module) -> bool:
    """Tell modules whose hooks, or other forward, a graph would lose or run only once."""
    return bool("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def _values(network: nn.Module) -> list[tuple[nn.Module, str, Any, int]]:
    """All that the modules of a network hold, each with its version if it is a tensor."""
    return [
        (module, name, value, value._version if isinstance(value, Tensor) and not value.is_inference() else 0)
        for module in network.modules()
        for held in (vars(module), module._parameters, module._buffers, module._modules)
        for name, value in held.items()
    ]


def _same(one: list[tuple[nn.Module, str, Any, int]], other: list[tuple[nn.Module, str, Any, int]]) -> bool:
    return len(one) == len(other) and all(
        module is module_then and name == name_then and value is value_then and version == version_then
        for (module, name, value, version), (module_then, name_then, value_then, version_then) in zip(
            one, other, strict=True
        )
    )


def with_other_readers(network: nn.Module, graph: fx.Graph) -> set[nn.Module]:
    """Modules that are used elsewhere, too: called twice, part of one that is called whole, or read for a tensor."""
    calls: Counter[nn.Module] = Counter()
    others: set[nn.Module] = set()
    for node in graph.nodes:
        module = module_of(network, node)
        if module is not None:
            calls[module] += 1
            others.update(part for part in module.modules() if part is not module)
        elif node.op == "get_attr":
            others.add(network.get_submodule(str(node.target).rpartition(".")[0]))
    return others | {module for module, number in calls.items() if number > 1}


def _only_reader(node: fx.Node, wanted: Callable[[fx.Node], bool]) -> fx.Node | None:
    """The node that alone reads ``node``, and reads nothing else, if it is the wanted one."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].all_input_nodes == [node] and wanted(readers[0]) else None


def _is_norm(module: nn.Module | None) -> bool:
    return type(module) is nn.BatchNorm2d and why_not_pointwise(module) is None


def _is_relu(node: fx.Node, module: nn.Module | None) -> bool:
    return effect_of(node, module) is nn.ReLU and (module is None or why_kept(module) is None)
