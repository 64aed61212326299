"""Where the channels of every layer go: through what, into which layers, and what the constant ones carry there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from daukit.channels.narrowing import Layer, by_channel
from daukit.models.pointwise import PER_CHANNEL, is_torch_call, why_not_pointwise
from daukit.models.replacing import why_kept
from daukit.models.tracing import call_name
from daukit.nn import DAUConv2d
from daukit.ops.units import pair_of_units

_KEEPS_CONSTANTS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_KEEPS_ZEROS: tuple[type[nn.Module], ...] = (nn.AvgPool2d, nn.ZeroPad2d)
_CALLS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "relu_": torch.relu, "flatten": lambda x: x}


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
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        name = str(node.target) if module is not None else node.name
        if len(sources) == 1 and (carried := _passed(node, module, sources[0][1])) is not None:
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


def _passed(node: fx.Node, module: nn.Module | None, carried: Tensor) -> Tensor | None:
    """What channels carry behind a node that keeps them apart; None for any other node."""
    if module is None:
        called = call_name(node) if is_torch_call(node) else ""
        if called == "flatten" and (node.args[1:] not in ((1,), (1, -1)) or node.kwargs):
            return None
        return _CALLS[called](carried) if node.op.startswith("call_") and called in _CALLS else None
    if why_kept(module) is not None:
        return None
    if type(module) in PER_CHANNEL:
        if why_not_pointwise(module) is not None:
            return None
        dtype = next((p.dtype for p in module.state_dict().values()), torch.float64)
        result: Tensor = module(carried.to(dtype, copy=True).reshape(1, -1, 1, 1))  # a copy, for what works in place
        return result.reshape(-1).double()
    if type(module) is nn.Flatten:
        return carried if (module.start_dim, module.end_dim) == (1, -1) else None
    if type(module) in _KEEPS_CONSTANTS:
        return carried
    if type(module) in _KEEPS_ZEROS or (type(module) is nn.ConstantPad2d and module.value == 0):
        return torch.where(carried == 0, carried, torch.nan)
    return None


def _can_narrow(layer: Layer) -> bool:
    """Whether channels can go out of a layer: one group, and nothing but what its type says."""
    return getattr(layer, "groups", 1) == 1 and why_kept(layer, DAUConv2d, nn.Conv2d, nn.Linear) is None


def _constants(layer: Layer) -> Tensor:
    """What the output channels carry that no weight other than zero reaches, their bias; NaN for the others."""
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
