"""The way of every layer's channels: through what, into which layers, and the values of constant ones there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from daukit.channels.narrowing import Layer, by_channel
from daukit.models.effects import (
    KEEPING_CONSTANTS,
    PER_CHANNEL,
    effect_of,
    flattens_all,
    is_arithmetic,
    keeps_zeros,
    why_not_pointwise,
    why_not_pointwise_call,
)
from daukit.models.graph import evaluate, module_of
from daukit.models.replacing import why_kept
from daukit.nn import DAUConv2d
from daukit.ops.units import pair_of_units


@dataclass
class Flow:
    """The way of one layer's output channels.

    Attributes:
        producer: the layer.
        produced: (channels,) float64; the value of a channel that no input changes, NaN for the others.
        norms: batch norms on the way.
        readers: {layer behind: what the channels carry there, (channels,) as ``produced``}.
        blocked: why no channel can be dropped; None where they can.
    """

    producer: str
    produced: Tensor
    norms: list[str] = field(default_factory=list)
    readers: dict[str, Tensor] = field(default_factory=dict)
    blocked: str | None = None


@torch.no_grad()
def follow(network: nn.Module, graph: fx.Graph) -> dict[str, Flow]:
    """Follow the output channels of every layer through the graph of ``network``, which must be in eval mode."""
    flows: dict[str, Flow] = {}
    at: dict[fx.Node, tuple[Flow, Tensor]] = {}  # whose channels a node holds, and what they carry there
    for node in graph.nodes:
        sources = [at[source] for source in node.all_input_nodes if source in at]
        module = module_of(network, node)
        name = str(node.target) if module is not None else node.name
        if len(sources) == 1 and (carried := _passed(network, node, module, sources[0][1])) is not None:
            at[node] = (sources[0][0], carried)
            if isinstance(module, nn.BatchNorm2d):
                sources[0][0].norms.append(name)
            continue
        layer = module if isinstance(module, Layer) and _can_narrow(module) else None
        for flow, carried in sources:
            if layer is None or (isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros"):
                flow.blocked = flow.blocked or f"its channels go into {_kind(node, name, module)}"
            else:
                flow.readers[name] = carried
        if layer is not None:
            flows[name] = Flow(name, _constants(layer))
            at[node] = (flows[name], flows[name].produced)
    _block_shared(graph, flows)
    return flows


def _passed(network: nn.Module, node: fx.Node, module: nn.Module | None, carried: Tensor) -> Tensor | None:
    """The values of channels behind a module or call that keeps them apart; None behind any other."""
    if module is not None and why_kept(module) is not None:
        return None
    kind = effect_of(node, module)
    if kind in PER_CHANNEL or is_arithmetic(node):
        return _computed(network, node, module, carried)
    if kind in KEEPING_CONSTANTS or flattens_all(node, module):
        return carried
    return torch.where(carried == 0, carried, torch.nan) if keeps_zeros(node, module) else None


def _computed(network: nn.Module, node: fx.Node, module: nn.Module | None, carried: Tensor) -> Tensor | None:
    """The values of channels behind something that looks at one position of one channel; None where it does not."""
    reason = why_not_pointwise_call(node) if module is None else why_not_pointwise(module)
    if reason is not None or len(node.all_input_nodes) > 1:
        return None
    values = () if module is None else module.state_dict().values()
    dtype = next((value.dtype for value in values), torch.float64)
    image = carried.to(dtype, copy=True).reshape(1, -1, 1, 1)  # a copy, for what works in place
    result: Tensor = evaluate(network, node, lambda _: image)
    return torch.where(carried.isnan(), torch.nan, result.reshape(-1).double())


def _can_narrow(layer: Layer) -> bool:
    """Tell layers that channels can go out of: they have one group, and do nothing but what their type says."""
    return getattr(layer, "groups", 1) == 1 and why_kept(layer, DAUConv2d, nn.Conv2d, nn.Linear) is None


def _constants(layer: Layer) -> Tensor:
    """The bias of each output channel that no weight other than zero reaches, which it carries; NaN for the others."""
    if isinstance(layer, DAUConv2d):
        outputs = pair_of_units(layer.unit_counts)[layer.weight.flatten() != 0] // layer.in_channels
        reached = torch.bincount(outputs, minlength=layer.out_channels) > 0
    else:
        reached = (by_channel(layer, layer.weight.shape[1]) != 0).flatten(1).any(1)
    bias = torch.zeros(reached.numel()) if layer.bias is None else layer.bias
    return torch.where(reached, torch.nan, bias.double())


def _block_shared(graph: fx.Graph, flows: dict[str, Flow]) -> None:
    """Channels of, or through, a module that is called twice cannot be told apart."""
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for flow in flows.values():
        shared = [name for name in (flow.producer, *flow.norms, *flow.readers) if called.count(name) > 1]
        if shared:
            flow.blocked = f"{shared[0]} is called more than once"
        elif not flow.readers:
            flow.blocked = flow.blocked or "nothing reads it"


def _kind(node: fx.Node, name: str, module: nn.Module | None) -> str:
    if node.op == "output":
        return "the network's output"
    if module is None:
        return f"{name}()"
    kept = why_kept(module)
    return f"{name} ({type(module).__name__}{f': {kept}' if kept else ''})"
