"""DAU layers that read the same map run as one, so that it is blurred and packed once."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import fx, nn

from daukit.models.effects import PER_CHANNEL, effect_of, is_arithmetic, is_joining
from daukit.models.graph import call_name, is_torch_call, module_of
from daukit.models.replacing import replace_everywhere, why_kept
from daukit.preparation.fusion import with_other_readers
from daukit.preparation.layer import PreparedDAUConv2d, joined

_VIEWING = (nn.Dropout, nn.Dropout2d, nn.Identity)  # in eval mode, what comes out may be what went in
_OF_ANY_LAYOUT = (
    *(kind for kind in PER_CHANNEL if kind not in _VIEWING), nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.Conv2d,
)  # fmt: skip
"""Types that make a new map of one whose channels are some of a larger one's."""


def join_layers(network: nn.Module, graph: fx.Graph) -> list[tuple[str, ...]]:
    """Make one layer of prepared ones that read the same map in the same way; change ``network`` and ``graph``.

    Returns:
        The names of the layers that became one, for each such layer; its name in the network is the first of them.
    """
    groups = _groups(network, graph)
    for calls in groups:
        layers = [network.get_submodule(str(call.target)) for call in calls]
        replace_everywhere(network, str(calls[0].target), joined([*map(_checked, layers)]))
        _split(network, graph, calls, [_checked(layer).out_channels for layer in layers])
    return [tuple(str(call.target) for call in calls) for calls in groups]


def _checked(layer: nn.Module) -> PreparedDAUConv2d:
    assert isinstance(layer, PreparedDAUConv2d)
    return layer


def _groups(network: nn.Module, graph: fx.Graph) -> list[list[fx.Node]]:
    """Calls of layers that may be joined, in the graph's order, two at least in each group."""
    others = with_other_readers(network, graph)
    open_groups: dict[tuple[object, ...], list[fx.Node]] = {}
    found: list[list[fx.Node]] = []
    for node in graph.nodes:
        module = module_of(network, node)
        if type(module) is PreparedDAUConv2d:
            if module in others or module.groups > 1 or len(node.args) != 1 or node.kwargs:
                continue
            key = (node.args[0], *module.reading())
            if key not in open_groups:
                open_groups[key] = []
                found.append(open_groups[key])
            open_groups[key].append(node)
        elif _may_write(node, module):
            open_groups.clear()  # later calls may read another map
    return [calls for calls in found if len(calls) > 1]


def _may_write(node: fx.Node, module: nn.Module | None) -> bool:
    """Tell what may change a map in place, or is not known well enough."""
    if node.op in ("placeholder", "get_attr", "output"):
        return False
    if module is not None:
        known = type(module).__module__.startswith("torch.nn.") and why_kept(module) is None
        return not known or any(vars(part).get("inplace", False) for part in module.modules())
    name = call_name(node)
    is_update = getattr(operator, name, None) is node.target and name.startswith(("i", "set", "del"))
    told = any(value is True for value in (*node.args, *node.kwargs.values())) or "out" in node.kwargs
    return is_update or told or name.endswith("_") or not is_torch_call(node)


def _split(network: nn.Module, graph: fx.Graph, calls: Sequence[fx.Node], channels: list[int]) -> None:
    """Give the readers of each call its channels of the first one's output."""
    first = calls[0]
    with graph.inserting_after(first):
        parts = graph.call_method("split", (first, channels, 1))
    last = parts
    for i, call in enumerate(calls):
        readers = [reader for reader in call.users if reader is not parts]
        with graph.inserting_after(last):
            part = last = graph.call_function(operator.getitem, (parts, i))
        if not all(_takes_any_layout(network, reader) for reader in readers):
            with graph.inserting_after(last):
                part = last = graph.call_method("contiguous", (part,))
        for reader in readers:
            reader.replace_input_with(call, part)
        if call is not first:
            graph.erase_node(call)


def _takes_any_layout(network: nn.Module, reader: fx.Node) -> bool:
    """Tell readers that make a new map of the channels, wherever these lie in memory."""
    module = module_of(network, reader)
    if type(module) is PreparedDAUConv2d:
        return True
    kind = effect_of(reader, module)
    is_fit = kind in _OF_ANY_LAYOUT or is_arithmetic(reader) or is_joining(reader)
    return is_fit and not _may_write(reader, module)
