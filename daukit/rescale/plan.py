"""Stride arithmetic on the graph: how far apart do a map's former positions lie once strides are gone?

The *spread* of a map is the step, in its new pixels, between positions that were neighbours before: 1 in front of the
first removed stride, times that stride behind it. It is the factor of every layer that reads the map.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx, nn

from daukit.rescale.graph import GLOBAL, POINTWISE, WINDOWED, pool_of, step_of

POINTWISE_CALLS = (
    "add", "iadd", "sub", "mul", "imul", "truediv", "cat", "contiguous", "dropout",
    "relu", "relu_", "leaky_relu", "gelu", "silu", "sigmoid", "tanh",
)  # fmt: skip
_GLOBAL_CALLS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")


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
        ends: {node: spread} where the two networks can be compared: what the stops read, or the output.
        predictions: those of ``ends`` that lie behind a head, where one vector becomes a map.
        has_joins: whether branches meet behind a removed stride.
    """

    spreads: dict[str, int]
    inputs: dict[str, str]
    flattens: tuple[str, ...]
    heads: tuple[str, ...]
    stops: tuple[str, ...]
    ends: dict[str, int]
    predictions: frozenset[str]
    has_joins: bool


def plan(model: nn.Module, graph: fx.Graph, removed: Collection[str]) -> Plan:
    """Follow the spread of every map through the graph when the modules called ``removed`` no longer stride.

    Raises:
        ValueError: branches of different spread meet, or what lies behind a removed stride is of an unknown kind.
    """
    walk = _Walk(model, removed)
    for node in graph.nodes:
        walk.visit(node)
    return Plan(
        walk.spreads, walk.inputs, tuple(walk.flattens), tuple(walk.heads), tuple(walk.stops), walk.ends,
        frozenset(walk.predictions), walk.has_joins,
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
        self.stops: list[str] = []
        self.ends: dict[str, int] = {}
        self.predictions: set[str] = set()
        self.has_joins = False

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._end(node)
            return
        sources = [source for source in node.all_input_nodes if source in self.spread]
        if is_size(node) or (node.all_input_nodes and not sources):
            return  # numbers and parameters are no maps
        spread = self._common_spread(node, sources)
        self.striding[node] = frozenset().union(*(self.striding.get(source, frozenset()) for source in sources))
        self.has_joins |= spread > 1 and len(sources) > 1
        if sources and sources[0] in self.flat:
            self.flat[node] = self.flat[sources[0]]
        if node.op == "call_module":
            self.spread[node] = self._module(node, str(node.target), spread)
        elif node.op in ("call_function", "call_method"):
            self.spread[node] = self._call(node, spread)
        elif node.op == "placeholder":
            self.spread[node] = 1

    def _common_spread(self, node: fx.Node, sources: list[fx.Node]) -> int:
        spreads = sorted({self.spread[source] for source in sources})
        if len(spreads) > 1:
            coarse, fine = (
                frozenset().union(*(self.striding[source] for source in sources if self.spread[source] == spread))
                for spread in (spreads[0], spreads[-1])
            )
            left = ", ".join(sorted(coarse - fine))
            raise ValueError(
                f"{node.name!r} joins branches whose accumulated strides would differ by factors of "
                f"{' and '.join(map(str, spreads))}; remove the strides of all its branches, or of none"
                + (f" (still striding: {left})" if left else "")
            )
        return spreads[0] if spreads else 1

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise ValueError(f"the network must return one tensor to be rescaled, it returns {result}")
        if not self.stops:
            self._compare_at(result, self.spread[result])

    def _compare_at(self, node: fx.Node, spread: int) -> None:
        self.ends[node.name] = spread
        if node in self.flat:
            self.predictions.add(node.name)

    def _module(self, node: fx.Node, name: str, spread: int) -> int:
        module = self.model.get_submodule(name)
        pool = pool_of(module)
        linear = type(module) is nn.Linear
        windowed = pool is not None or type(module) in WINDOWED
        if windowed or linear:
            if self.spreads.setdefault(name, spread) != spread:
                factors = f"{self.spreads[name]} and {spread}"
                raise ValueError(f"{name!r} is called twice, where factors would be {factors}; it can have only one")
            self.inputs[name] = node.all_input_nodes[0].name
        step = step_of(module)
        if name in self.removed:
            return spread * step[0]
        if step != (1, 1):
            self.striding[node] |= {name}
        if spread == 1:
            return 1
        if isinstance(module, nn.Flatten):
            return self._flatten(node, name, module, spread)
        if linear and node in self.flat:
            source, self.flat[node] = self.flat[node], None
            self.inputs.pop(name)
            if source is not None:
                self.inputs[name] = source.name
                self.heads.append(name)
            return spread
        if isinstance(module, GLOBAL):
            return self._stop(node, name, spread)
        if not (isinstance(module, POINTWISE) or (windowed and node not in self.flat)):
            kind = type(module).__name__
            raise ValueError(f"{name!r} lies behind a removed stride, and how to rescale a {kind} there is unknown")
        return spread

    def _flatten(self, node: fx.Node, name: str, module: nn.Flatten, spread: int) -> int:
        if (module.start_dim, module.end_dim) != (1, -1):
            dimensions = f"{module.start_dim} to {module.end_dim}"
            raise ValueError(f"{name!r} flattens dimensions {dimensions}; only 1 to -1 can be replaced")
        self.flattens.append(name)
        self.flat[node] = node.all_input_nodes[0]
        return spread

    def _call(self, node: fx.Node, spread: int) -> int:
        called = call_name(node)
        if spread == 1 or called in POINTWISE_CALLS:
            return spread
        resized = called == "interpolate" and node.kwargs.get("size") is not None
        if called in _GLOBAL_CALLS or resized or (called == "mean" and _mean_is_global(node)):
            return self._stop(node, node.name, spread)
        raise ValueError(
            f"the network calls {called}() behind a removed stride; write it as a module (nn.Flatten, nn.MaxPool2d), "
            "so that a file can say what replaces it"
        )

    def _stop(self, node: fx.Node, name: str, spread: int) -> int:
        self.stops.append(name)
        self._compare_at(node.all_input_nodes[0], spread)
        return 1


def call_name(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def is_size(node: fx.Node) -> bool:
    """Whether a node asks for a shape, which is no map."""
    return node.args[1:2] == ("shape",) if node.target is getattr else node.target in ("size", "dim")


def _mean_is_global(node: fx.Node) -> bool:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
