"""Stride arithmetic on the graph: how far apart do a map's former positions lie once strides are gone?

The *spread* of a map is the step, in its new pixels, between positions that were neighbours before: 1 in front of the
first removed stride, times that stride behind it. It is the factor of every layer that reads the map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import fx, nn

from daukit.models.pointwise import (
    PER_POSITION,
    is_pointwise_call,
    is_torch_call,
    why_not_pointwise,
    why_not_pointwise_call,
)
from daukit.models.replacing import why_kept
from daukit.models.tracing import call_name
from daukit.rescale.graph import GLOBAL, WINDOWED, pool_of, step_of
from daukit.rescale.operands import is_size, sizes_read_by, why_not_beside

_GLOBAL_CALLS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
_SPREADING_CALLS = ("interpolate", "expand")
"""What gives one value, that of a whole map, the size of a map."""


@dataclass(frozen=True)
class Plan:
    """What removing strides means for every module.

    Attributes:
        spreads: {module: spread of the map it reads}, in the network's order; modules with a window, and linear layers.
        inputs: {module: name of the graph's node that it reads}; for a linear layer behind a removed stride, the node
            of the map that was flattened for it, and none if it reads another linear layer.
        flattens: flattening modules that must go, since a map comes where a vector came.
        heads: linear layers behind a removed stride that read a flattened map: they become windows over that map.
        stops: what reads a whole map behind removed strides, global pools (module or node) and resizing to a given
            size: the arithmetic ends there.
        gates: {module: spread} of those global pools whose result is joined to a map again: it goes on there.
        gate_calls: functions in the place of such modules.
        ends: {node: spread} where the two networks can be compared: what the stops read, or the output.
        predictions: those of ``ends`` that lie behind a head, where one vector becomes a map.
    """

    spreads: dict[str, int]
    inputs: dict[str, str]
    flattens: tuple[str, ...]
    heads: tuple[str, ...]
    stops: tuple[str, ...]
    gates: dict[str, int]
    gate_calls: tuple[str, ...]
    ends: dict[str, int]
    predictions: frozenset[str]


def plan(model: nn.Module, graph: fx.Graph, removed: Collection[str]) -> Plan:
    """Follow the spread of every map through the graph when the modules called ``removed`` no longer stride.

    Raises:
        ValueError: branches of different spread meet, or what lies behind a removed stride is of an unknown kind.
    """
    walk = _Walk(model, removed)
    for node in graph.nodes:
        walk.visit(node)
    ends = {source: walk.spread[source] for source in (stop.all_input_nodes[0] for stop in walk.stops)} or walk.result
    return Plan(
        walk.spreads, walk.inputs, tuple(walk.flattens), tuple(walk.heads), tuple(walk.stops.values()), *walk.gates(),
        {node.name: spread for node, spread in ends.items()},
        frozenset(node.name for node in ends if node in walk.flat),
    )  # fmt: skip


class _Walk:
    """The spread of every node so far, and what becomes of the ``Plan``."""

    def __init__(self, model: nn.Module, removed: Collection[str]) -> None:
        self.model, self.removed = model, removed
        self.spread: dict[fx.Node, int] = {}
        self.striding: dict[fx.Node, frozenset[str]] = {}  # modules on the way to a node that keep their stride
        self.flat: dict[fx.Node, fx.Node | None] = {}
        self.spreads: dict[str, int] = {}
        self.inputs: dict[str, str] = {}
        self.flattens: list[str] = []
        self.heads: list[str] = []
        self.stops: dict[fx.Node, str] = {}
        self.opened: dict[fx.Node, str] = {}  # stops that turned out to be gates
        self.pooled: dict[str, set[int]] = {}  # spreads at which a global pool is called
        self.whole: dict[fx.Node, frozenset[fx.Node]] = {}  # the stops that a value of a whole map comes from
        self.result: dict[fx.Node, int] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._end(node)
            return
        sources = [source for source in node.all_input_nodes if source in self.spread]
        if is_size(node) or (node.all_input_nodes and not sources):
            return  # numbers and parameters are no maps
        spread = self._joined(node, sources)
        self.striding[node] = frozenset().union(*(self.striding.get(source, frozenset()) for source in sources))
        if sources and sources[0] in self.flat:
            self.flat[node] = self.flat[sources[0]]
        if node.op == "call_module":
            self.spread[node] = self._module(node, str(node.target), spread)
        elif node.op in ("call_function", "call_method"):
            self.spread[node] = self._call(node, spread)
        elif node.op == "placeholder":
            self.spread[node] = 1

    def gates(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """Global pools that are gates: modules with the spread that they read, and calls."""
        modules = {name: self.pooled[name] for node, name in self.opened.items() if node.op == "call_module"}
        for name, spreads in modules.items():
            if len(spreads) > 1:
                factors = " and ".join(map(str, sorted(spreads)))
                raise ValueError(f"{name!r} is called twice, where factors would be {factors}; it can have only one")
        calls = tuple(name for node, name in self.opened.items() if node.op != "call_module")
        return {name: next(iter(spreads)) for name, spreads in modules.items()}, calls

    def _joined(self, node: fx.Node, sources: list[fx.Node]) -> int:
        """The spread that all sources share; a value of a whole map fits to any."""
        maps = [source for source in sources if source not in self.whole]
        if maps and len(maps) < len(sources):
            spread = self._common_spread(node, maps)
            if spread > 1:
                self._open(source for source in sources if source in self.whole)
            return spread
        if sources and not maps:
            self.whole[node] = frozenset().union(*(self.whole[source] for source in sources))
        return self._common_spread(node, sources)

    def _open(self, gates: Iterable[fx.Node]) -> None:
        """What ends in these values goes on behind them."""
        for stop in frozenset().union(*(self.whole[gate] for gate in gates)):
            self.opened[stop] = self.opened.get(stop) or self.stops.pop(stop)

    def _common_spread(self, node: fx.Node, sources: list[fx.Node]) -> int:
        spreads = sorted({self.spread[source] for source in sources})
        if len(spreads) > 1:
            coarse, fine = (
                frozenset().union(*(self.striding[source] for source in sources if self.spread[source] == spread))
                for spread in (spreads[0], spreads[-1])
            )
            left = ", ".join(sorted(coarse - fine))
            stops = f"; one of them may come from {', '.join(self.stops.values())}" if self.stops else ""
            raise ValueError(
                f"{node.name!r} joins branches whose accumulated strides would differ by factors of "
                f"{' and '.join(map(str, spreads))}; remove the strides of all its branches, or of none"
                + (f" (still striding: {left})" if left else stops)
            )
        return spreads[0] if spreads else 1

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise ValueError(f"the network must return one tensor to be rescaled, it returns {result}")
        if result not in self.spread:
            raise ValueError("the network's output does not come from its input by way of maps")
        self.result = {result: self.spread[result]}

    def _module(self, node: fx.Node, name: str, spread: int) -> int:
        module = self.model.get_submodule(name)
        windowed = pool_of(module) is not None or type(module) in WINDOWED
        linear = type(module) is nn.Linear
        if windowed or linear:
            if self.spreads.setdefault(name, spread) != spread:
                factors = f"{self.spreads[name]} and {spread}"
                raise ValueError(f"{name!r} is called twice, where factors would be {factors}; it can have only one")
            self.inputs[name] = node.all_input_nodes[0].name
        if type(module) in GLOBAL:
            self.pooled.setdefault(name, set()).add(spread)
        step = step_of(module)
        if name in self.removed:
            return spread * step[0]
        if step != (1, 1):
            self.striding[node] |= {name}
        if spread == 1:
            return 1
        if type(module) is nn.Flatten:
            return self._flatten(node, name, module, spread)
        if linear and node in self.flat:
            source, self.flat[node] = self.flat[node], None
            self.inputs.pop(name)
            if source is not None:
                self.inputs[name] = source.name
                self.heads.append(name)
            return spread
        if type(module) in GLOBAL:
            return self._stop(node, name, _is_one(module.output_size))
        if not windowed or node in self.flat:
            self._check_pointwise(name, module)
        return spread

    def _check_pointwise(self, name: str, module: nn.Module) -> None:
        reason = why_not_pointwise(module)
        if type(module) not in PER_POSITION:
            # Of a parametrised module, or one with hooks, that is what there is to say.
            reason = why_kept(module) or f"how to rescale a {type(module).__name__} there is unknown"
        if reason is not None:
            raise ValueError(f"{name!r} lies behind a removed stride, and {reason}")

    def _flatten(self, node: fx.Node, name: str, module: nn.Flatten, spread: int) -> int:
        if (module.start_dim, module.end_dim) != (1, -1):
            dimensions = f"{module.start_dim} to {module.end_dim}"
            raise ValueError(f"{name!r} flattens dimensions {dimensions}; only 1 to -1 can be replaced")
        self.flattens.append(name)
        self.flat[node] = node.all_input_nodes[0]
        return spread

    def _call(self, node: fx.Node, spread: int) -> int:
        called = call_name(node) if is_torch_call(node) else ""
        if called in _SPREADING_CALLS and node in self.whole:
            return self._spread_out(node)
        if spread == 1:
            return spread
        if is_pointwise_call(node):
            is_flat = node in self.flat
            reason = why_not_pointwise_call(node, is_flat) or why_not_beside(self.model, node, self.spread, is_flat)
            if reason is not None:
                raise ValueError(f"{node.name!r} lies behind a removed stride, and {reason}")
            return spread
        if called == "interpolate" and node.kwargs.get("size") is not None:
            return self._stop(node, node.name, False)
        if called in _GLOBAL_CALLS or (called == "mean" and _mean_is_global(node)):
            return self._stop(
                node, node.name, called == "mean" or _is_one(node.kwargs.get("output_size", node.args[-1]))
            )
        raise ValueError(
            f"the network calls {call_name(node)}() behind a removed stride; write it as a module (nn.Flatten, "
            "nn.MaxPool2d), so that a file can say what replaces it"
        )

    def _spread_out(self, node: fx.Node) -> int:
        """One value, that of a whole map, at every position of another map: it is as fine as that one."""
        spreads = {self.spread[one] for one in sizes_read_by(node, self.spread)}
        if spreads and max(spreads) > 1:
            self._open([node])
        self.whole.pop(node)
        return max(spreads, default=1)

    def _stop(self, node: fx.Node, name: str, is_point: bool) -> int:
        self.stops[node] = name
        if is_point:
            self.whole[node] = frozenset([node])
        return 1


def _is_one(size: object) -> bool:
    """Whether a size is that of a single position."""
    return size in (1, (1, 1), [1, 1])


def _mean_is_global(node: fx.Node) -> bool:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
