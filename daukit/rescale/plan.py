"""Stride arithmetic on the graph: by how much is every map finer once strides are gone?

The *factor* of a map is the stride accumulated over what was removed in front of it: 1 in front of the first removed
stride, times that stride behind it. Former neighbours lie so many of the new pixels apart, and every layer that reads
the map is rescaled by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import fx, nn

from daukit.models.effects import (
    GLOBAL_POOLS,
    PER_POSITION,
    effect_of,
    is_pointwise_call,
    why_not_pointwise,
    why_not_pointwise_call,
)
from daukit.models.graph import argument, call_name, is_torch_call
from daukit.models.replacing import why_kept
from daukit.rescale.operands import is_size, sizes_read_by, why_not_beside
from daukit.rescale.strided import has_window, stride_of

_EXPANDING_CALLS = ("interpolate", "expand")
"""Calls that give one value, that of a whole map, the size of a map."""


@dataclass(frozen=True)
class Plan:
    """The consequences of removed strides for every module.

    Attributes:
        factors: {module: factor of the map it reads}, in the network's order; modules with a window, and linear layers.
        inputs: {module: name of the graph's node that it reads}; for a linear layer behind a removed stride, the node
            of the map that was flattened for it, and none if it reads another linear layer.
        flattens: flattening modules that must go, since a map comes where a vector came.
        heads: linear layers behind a removed stride that read a flattened map: they become windows over that map.
        stops: what reads a whole map behind removed strides, global pools (module or node) and resizing to a given
            size: the arithmetic ends there.
        gates: {module: factor} of those global pools whose result is joined to a map again: it goes on there.
        gate_calls: functions in the place of such modules.
        ends: {node: factor} where the two networks can be compared: what the stops read, or the output.
        predictions: those of ``ends`` that lie behind a head, where one vector becomes a map.
    """

    factors: dict[str, int]
    inputs: dict[str, str]
    flattens: tuple[str, ...]
    heads: tuple[str, ...]
    stops: tuple[str, ...]
    gates: dict[str, int]
    gate_calls: tuple[str, ...]
    ends: dict[str, int]
    predictions: frozenset[str]


def plan(model: nn.Module, graph: fx.Graph, removed: Collection[str]) -> Plan:
    """Follow the factor of every map through the graph when the modules called ``removed`` no longer stride.

    Raises:
        ValueError: branches of different factor meet, or what lies behind a removed stride is of an unknown kind.
    """
    walk = _Walk(model, removed)
    for node in graph.nodes:
        walk.visit(node)
    ends = {source: walk.factor[source] for source in (stop.all_input_nodes[0] for stop in walk.stops)} or walk.result
    gates, gate_calls = walk.gates()
    return Plan(
        factors=walk.factors,
        inputs=walk.inputs,
        flattens=tuple(walk.flattens),
        heads=tuple(walk.heads),
        stops=tuple(walk.stops.values()),
        gates=gates,
        gate_calls=gate_calls,
        ends={node.name: factor for node, factor in ends.items()},
        predictions=frozenset(node.name for node in ends if node in walk.flat),
    )


class _Walk:
    """The factor of every node so far, and what becomes of the ``Plan``."""

    def __init__(self, model: nn.Module, removed: Collection[str]) -> None:
        self.model, self.removed = model, removed
        self.factor: dict[fx.Node, int] = {}
        self.striding: dict[fx.Node, frozenset[str]] = {}  # modules on the way to a node that keep their stride
        self.flat: dict[fx.Node, fx.Node | None] = {}
        self.factors: dict[str, int] = {}
        self.inputs: dict[str, str] = {}
        self.flattens: list[str] = []
        self.heads: list[str] = []
        self.stops: dict[fx.Node, str] = {}
        self.opened: dict[fx.Node, str] = {}  # stops that turned out to be gates
        self.pooled: dict[str, set[int]] = {}  # factors at which a global pool is called
        self.whole: dict[fx.Node, frozenset[fx.Node]] = {}  # the stops that a value of a whole map comes from
        self.result: dict[fx.Node, int] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._end(node)
            return
        sources = [source for source in node.all_input_nodes if source in self.factor]
        if is_size(node) or (node.all_input_nodes and not sources):
            return  # numbers and parameters are no maps
        factor = self._joined(node, sources)
        self.striding[node] = frozenset().union(*(self.striding.get(source, frozenset()) for source in sources))
        if sources and sources[0] in self.flat:
            self.flat[node] = self.flat[sources[0]]
        if node.op == "call_module":
            self.factor[node] = self._module(node, str(node.target), factor)
        elif node.op in ("call_function", "call_method"):
            self.factor[node] = self._call(node, factor)
        elif node.op == "placeholder":
            self.factor[node] = 1

    def gates(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """Global pools that are gates: modules with the factor that they read, and calls."""
        modules = {name: self.pooled[name] for node, name in self.opened.items() if node.op == "call_module"}
        for name, factors in modules.items():
            if len(factors) > 1:
                different = " and ".join(map(str, sorted(factors)))
                raise ValueError(f"{name!r} is called twice, where factors would be {different}; it can have only one")
        calls = tuple(name for node, name in self.opened.items() if node.op != "call_module")
        return {name: next(iter(factors)) for name, factors in modules.items()}, calls

    def _joined(self, node: fx.Node, sources: list[fx.Node]) -> int:
        """The factor that all sources share; a value of a whole map fits to any."""
        maps = [source for source in sources if source not in self.whole]
        if maps and len(maps) < len(sources):
            factor = self._common_factor(node, maps)
            if factor > 1:
                self._open(source for source in sources if source in self.whole)
            return factor
        if sources and not maps:
            self.whole[node] = frozenset().union(*(self.whole[source] for source in sources))
        return self._common_factor(node, sources)

    def _open(self, gates: Iterable[fx.Node]) -> None:
        """Let what ends in these values go on behind them."""
        for stop in frozenset().union(*(self.whole[gate] for gate in gates)):
            self.opened[stop] = self.opened.get(stop) or self.stops.pop(stop)

    def _common_factor(self, node: fx.Node, sources: list[fx.Node]) -> int:
        factors = sorted({self.factor[source] for source in sources})
        if len(factors) > 1:
            coarse, fine = (
                frozenset().union(*(self.striding[source] for source in sources if self.factor[source] == factor))
                for factor in (factors[0], factors[-1])
            )
            left = ", ".join(sorted(coarse - fine))
            stops = f"; one of them may come from {', '.join(self.stops.values())}" if self.stops else ""
            raise ValueError(
                f"{node.name!r} joins branches whose accumulated strides would differ by factors of "
                f"{' and '.join(map(str, factors))}; remove the strides of all its branches, or of none"
                + (f" (still striding: {left})" if left else stops)
            )
        return factors[0] if factors else 1

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise ValueError(f"the network must return one tensor to be rescaled, it returns {result}")
        if result not in self.factor:
            raise ValueError("the network's output does not come from its input by way of maps")
        self.result = {result: self.factor[result]}

    def _module(self, node: fx.Node, name: str, factor: int) -> int:
        module = self.model.get_submodule(name)
        windowed = has_window(module)
        linear = type(module) is nn.Linear
        if windowed or linear:
            if self.factors.setdefault(name, factor) != factor:
                different = f"{self.factors[name]} and {factor}"
                raise ValueError(f"{name!r} is called twice, where factors would be {different}; it can have only one")
            self.inputs[name] = node.all_input_nodes[0].name
        if type(module) in GLOBAL_POOLS:
            self.pooled.setdefault(name, set()).add(factor)
        stride = stride_of(module)
        if name in self.removed:
            return factor * stride[0]
        if stride != (1, 1):
            self.striding[node] |= {name}
        if factor == 1:
            return 1
        if type(module) is nn.Flatten:
            return self._flatten(node, name, module, factor)
        if linear and node in self.flat:
            source, self.flat[node] = self.flat[node], None
            self.inputs.pop(name)
            if source is not None:
                self.inputs[name] = source.name
                self.heads.append(name)
            return factor
        if type(module) in GLOBAL_POOLS:
            return self._stop(node, name, _is_one(module.output_size))
        if type(module) is nn.Upsample and module.size is not None:
            return self._stop(node, name, False)
        if not windowed or node in self.flat:
            self._check_pointwise(name, module)
        return factor

    def _check_pointwise(self, name: str, module: nn.Module) -> None:
        reason = why_not_pointwise(module)
        if type(module) not in PER_POSITION:
            # Of a parametrised module, or one with hooks, that is what there is to say.
            reason = why_kept(module) or f"how to rescale a {type(module).__name__} there is unknown"
        if reason is not None:
            raise ValueError(f"{name!r} lies behind a removed stride, and {reason}")

    def _flatten(self, node: fx.Node, name: str, module: nn.Flatten, factor: int) -> int:
        if (module.start_dim, module.end_dim) != (1, -1):
            dimensions = f"{module.start_dim} to {module.end_dim}"
            raise ValueError(f"{name!r} flattens dimensions {dimensions}; only 1 to -1 can be replaced")
        self.flattens.append(name)
        self.flat[node] = node.all_input_nodes[0]
        return factor

    def _call(self, node: fx.Node, factor: int) -> int:
        called = call_name(node) if is_torch_call(node) else ""
        if called in _EXPANDING_CALLS and node in self.whole:
            return self._expanded(node)
        if factor == 1:
            return factor
        if is_pointwise_call(node):
            is_flat = node in self.flat
            reason = why_not_pointwise_call(node, is_flat) or why_not_beside(self.model, node, self.factor, is_flat)
            if reason is not None:
                raise ValueError(f"{node.name!r} lies behind a removed stride, and {reason}")
            return factor
        if called == "interpolate" and node.kwargs.get("size") is not None:
            return self._stop(node, node.name, False)
        if effect_of(node, None) in GLOBAL_POOLS or (called == "mean" and _mean_is_global(node)):
            return self._stop(node, node.name, called == "mean" or _is_one(argument(node, 1, ("output_size",), None)))
        raise ValueError(
            f"the network calls {call_name(node)}() behind a removed stride; write it as a module (nn.Flatten, "
            "nn.MaxPool2d), so that a file can say what replaces it"
        )

    def _expanded(self, node: fx.Node) -> int:
        """One value, that of a whole map, at every position of another map: it is as fine as that one."""
        factors = {self.factor[one] for one in sizes_read_by(node, self.factor)}
        if factors and max(factors) > 1:
            self._open([node])
        self.whole.pop(node)
        return max(factors, default=1)

    def _stop(self, node: fx.Node, name: str, is_point: bool) -> int:
        self.stops[node] = name
        if is_point:
            self.whole[node] = frozenset([node])
        return 1


def _is_one(size: object) -> bool:
    """Tell the size of a single position."""
    return size in (1, (1, 1), [1, 1])


def _mean_is_global(node: fx.Node) -> bool:
    axes = argument(node, 1, ("dim",), None)
    return isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
