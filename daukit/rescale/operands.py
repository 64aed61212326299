"""Operands beside a map: parameters, buffers and constants must have no size of their own behind a removed stride."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from daukit.models.graph import evaluate


def why_not_beside(model: nn.Module, node: fx.Node, maps: Collection[fx.Node], is_flat: bool) -> str | None:
    """The reason why what ``node`` joins with a map cannot stand beside a finer one; None where everything can.

    Args:
        model: the network of the graph.
        node: the joining call.
        maps: nodes that hold maps.
        is_flat: whether the joined ones are vectors (N, C), where a map is to come.
    """
    for source in node.all_input_nodes:
        if source in maps:
            continue
        behind = list(_behind(source, maps))
        name = next((repr(str(one.target)) for one in behind if one.op == "get_attr"), f"{source.name}()")
        name = "a constant" if name.startswith("'_tensor_constant") else name  # torch.fx's name for one
        if any(one in maps for one in behind):
            return f"it joins a map with {name}, which follows from a map's size"
        with torch.no_grad():
            value = _value(model, source)
        if isinstance(value, Tensor) and not _fits(value, is_flat):
            return (
                f"it joins a map with {name} of shape {tuple(value.shape)}, a size of its own that does not follow "
                "the finer map"
            )
    return None


def sizes_read_by(node: fx.Node, maps: Collection[fx.Node]) -> set[fx.Node]:
    """The maps whose sizes ``node`` gets as numbers."""
    sources = [source for source in node.all_input_nodes if source not in maps]
    return {one for source in sources for one in _behind(source, maps) if one in maps}


def is_size(node: fx.Node) -> bool:
    """Tell nodes that ask for a shape, which is no map."""
    return node.args[1:2] == ("shape",) if node.target is getattr else node.target in ("size", "dim")


def _behind(node: fx.Node, maps: Collection[fx.Node]) -> Iterator[fx.Node]:
    """``node`` and everything that it is made of, up to the maps among that, each once."""
    waiting, seen = [node], {node}
    while waiting:
        one = waiting.pop()
        yield one
        sources = [source for source in one.all_input_nodes if source not in seen] if one not in maps else []
        seen.update(sources)
        waiting.extend(reversed(sources))


def _fits(value: Tensor, is_flat: bool) -> bool:
    """Tell constants that are the same at every position."""
    if value.numel() == 1:
        return value.dim() <= 4
    return not is_flat and 2 <= value.dim() <= 4 and value.shape[-2:] == (1, 1)


def _value(model: nn.Module, node: fx.Node, known: dict[fx.Node, Any] | None = None) -> Any:
    """Compute what a node holds that no map goes into; ``known`` are those that were computed already."""
    known = {} if known is None else known
    if node not in known:
        known[node] = evaluate(model, node, lambda one: _value(model, one, known))
    return known[node]
