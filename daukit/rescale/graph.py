"""The traced network, and the stride arithmetic on it: how far apart do its former positions lie once pools are gone?

The *spread* of a map is the step, in its new pixels, between positions that were neighbours before: 1 in front of the
first removed pool, times that pool's stride behind it. It is the factor of every layer that reads the map.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from daukit.nn import DAUConv2d

Pool = nn.MaxPool2d | nn.AvgPool2d

POINTWISE = (
    nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Dropout2d, nn.Identity,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish,
)  # fmt: skip
GLOBAL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PADS = (nn.ConstantPad2d, nn.ZeroPad2d)
WINDOWED = (DAUConv2d, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *PADS)

_POINTWISE_CALLS = (
    "add", "iadd", "sub", "mul", "imul", "truediv", "cat", "contiguous", "dropout",
    "relu", "relu_", "leaky_relu", "gelu", "silu", "sigmoid", "tanh",
)  # fmt: skip
_GLOBAL_CALLS = ("adaptive_avg_pool2d", "adaptive_max_pool2d")


@dataclass(frozen=True)
class Plan:
    """What removing pools means for every module.

    Attributes:
        spreads: {module: spread of the map it reads}, in the network's order; modules with a window, and linear layers.
        inputs: {module: name of the graph's node that it reads}; for a linear layer behind a removed pool, the node of
            the map that was flattened for it, and none if it reads another linear layer.
        flattens: flattening modules that must go, since a map comes where a vector came.
        stops: what reads a whole map behind removed pools, global pools (module or node) and resizing to a given size:
            the arithmetic ends there.
        ends: {node: spread} where the two networks can be compared: what the stops read, or the output.
        has_joins: whether branches meet behind a removed pool.
    """

    spreads: dict[str, int]
    inputs: dict[str, str]
    flattens: tuple[str, ...]
    stops: tuple[str, ...]
    ends: dict[str, int]
    has_joins: bool


def trace(model: nn.Module) -> fx.Graph:
    """The graph of ``model``, with DAU layers and padded pools whole.

    Raises:
        ValueError: the network's forward cannot be traced.
    """
    try:
        return _Tracer().trace(model)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NameError) as error:
        raise ValueError(
            f"cannot trace the network ({type(error).__name__}: {error}); removing pools needs a forward that decides "
            "nothing by its input. Factors per layer need no trace: --factor LAYER=2"
        ) from None


def pool_of(module: nn.Module) -> Pool | None:
    """The pool that ``module`` is, bare or behind its own padding with -inf; None for other modules."""
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return module
    if type(module) is nn.Sequential and len(module) == 2:
        pad, pool = module
        if isinstance(pad, nn.ConstantPad2d) and pad.value == float("-inf") and isinstance(pool, nn.MaxPool2d):
            return pool
    return None


def check_pools(model: nn.Module, graph: fx.Graph, names: Sequence[str]) -> tuple[str, ...]:
    """``names`` without repetitions.

    Raises:
        ValueError: one of them is not a pool that the network calls and whose stride is one number above 1.
    """
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    pools = [name for name in called if pool_of(model.get_submodule(name)) is not None]
    known = dict(model.named_modules())
    for name in names:
        near = difflib.get_close_matches(name, pools, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = f"(pools: {', '.join(pools) or 'none'})"
        if name not in known:
            raise ValueError(f"there is no pool {name!r}{hint} {listed}")
        pool = pool_of(known[name])
        if pool is None or name not in pools:
            kind = type(known[name]).__name__
            raise ValueError(f"{name!r} is a {kind}, not a pool that the network calls{hint} {listed}")
        step = pair(pool.stride)
        if step == (1, 1):
            raise ValueError(f"pool {name!r} has stride 1 already: there is no resolution to gain")
        if step[0] != step[1]:
            raise ValueError(f"pool {name!r} has stride {step}; rescaling needs the same stride on both axes")
    return tuple(dict.fromkeys(names))


def plan(model: nn.Module, graph: fx.Graph, removed: Collection[str]) -> Plan:
    """Follow the spread of every map through the graph when the pools called ``removed`` no longer stride.

    Raises:
        ValueError: branches of different spread meet, or a module or call behind a removed pool is of an unknown kind.
    """
    walk = _Walk(model, removed)
    for node in graph.nodes:
        walk.visit(node)
    return Plan(walk.spreads, walk.inputs, tuple(walk.flattens), tuple(walk.stops), walk.ends, walk.has_joins)


def values_at(model: nn.Module, graph: fx.Graph, nodes: Collection[str], input: Tensor) -> dict[str, Tensor]:
    """Run ``model`` on ``input`` and return what the graph's nodes of these names hold.

    Raises:
        ValueError: the network does not take such an input.
    """
    recorder = _Recorder(model, graph, nodes)
    try:
        with torch.no_grad():
            recorder.run(input)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the network cannot be run on an input of shape {tuple(input.shape)}: {reason}") from None
    return recorder.values


def input_channels(model: nn.Module, graph: fx.Graph) -> int:
    """Channels of the network's input: those of the first layer that says."""
    for node in graph.nodes:
        if node.op == "call_module":
            channels = getattr(model.get_submodule(str(node.target)), "in_channels", None)
            if channels is not None:
                return int(channels)
    raise ValueError("the network has no convolution from which to read the channels of its input")


def pair(value: int | Iterable[int]) -> tuple[int, int]:
    """A size that may be given once for both axes, as (y, x)."""
    y, x = (value, value) if isinstance(value, int) else value
    return y, x


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DAUConv2d) or pool_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps what the wanted nodes hold."""

    def __init__(self, model: nn.Module, graph: fx.Graph, nodes: Collection[str]) -> None:
        super().__init__(model, graph=graph)
        self.nodes = nodes
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.nodes:
            self.values[n.name] = result
        return result


class _Walk:
    """The spread of every node so far, and what becomes of the ``Plan``."""

    def __init__(self, model: nn.Module, removed: Collection[str]) -> None:
        self.model, self.removed = model, removed
        self.spread: dict[fx.Node, int] = {}
        self.flat: dict[fx.Node, fx.Node | None] = {}
        self.spreads: dict[str, int] = {}
        self.inputs: dict[str, str] = {}
        self.flattens: list[str] = []
        self.stops: list[str] = []
        self.ends: dict[str, int] = {}
        self.has_joins = False

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._end(node)
            return
        sources = [source for source in node.all_input_nodes if source in self.spread]
        if _is_size(node) or (node.all_input_nodes and not sources):
            return  # numbers and parameters are no maps
        spreads = {self.spread[source] for source in sources}
        if len(spreads) > 1:
            raise ValueError(
                f"{node.name!r} joins branches whose accumulated strides would differ by factors of "
                f"{' and '.join(map(str, sorted(spreads)))}; remove the pools of all its branches, or of none"
            )
        spread = spreads.pop() if spreads else 1
        self.has_joins |= spread > 1 and len(sources) > 1
        if sources and sources[0] in self.flat:
            self.flat[node] = self.flat[sources[0]]
        if node.op == "call_module":
            self.spread[node] = self._module(node, str(node.target), spread)
        elif node.op in ("call_function", "call_method"):
            self.spread[node] = self._call(node, spread)
        elif node.op == "placeholder":
            self.spread[node] = 1

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise ValueError(f"the network must return one tensor to be rescaled, it returns {result}")
        if not self.stops:
            self.ends = {result.name: self.spread[result]}

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
        if pool is not None and name in self.removed:
            return spread * pair(pool.stride)[0]
        if spread == 1:
            return 1
        if isinstance(module, nn.Flatten):
            return self._flatten(node, name, module, spread)
        if linear and node in self.flat:
            source, self.flat[node] = self.flat[node], None
            self.inputs.pop(name)
            if source is not None:
                self.inputs[name] = source.name
            return spread
        if isinstance(module, GLOBAL):
            return self._stop(node, name, spread)
        if not (isinstance(module, POINTWISE) or (windowed and node not in self.flat)):
            kind = type(module).__name__
            raise ValueError(f"{name!r} lies behind a removed pool, and how to rescale a {kind} there is unknown")
        return spread

    def _flatten(self, node: fx.Node, name: str, module: nn.Flatten, spread: int) -> int:
        if (module.start_dim, module.end_dim) != (1, -1):
            dimensions = f"{module.start_dim} to {module.end_dim}"
            raise ValueError(f"{name!r} flattens dimensions {dimensions}; only 1 to -1 can be replaced")
        self.flattens.append(name)
        self.flat[node] = node.all_input_nodes[0]
        return spread

    def _call(self, node: fx.Node, spread: int) -> int:
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if spread == 1 or called in _POINTWISE_CALLS:
            return spread
        resized = called == "interpolate" and node.kwargs.get("size") is not None
        if called in _GLOBAL_CALLS or resized or (called == "mean" and _mean_is_global(node)):
            return self._stop(node, node.name, spread)
        raise ValueError(
            f"the network calls {called}() behind a removed pool; write it as a module (nn.Flatten, nn.MaxPool2d), so "
            "that a file can say what replaces it"
        )

    def _stop(self, node: fx.Node, name: str, spread: int) -> int:
        self.stops.append(name)
        self.ends[node.all_input_nodes[0].name] = spread
        return 1


def _is_size(node: fx.Node) -> bool:
    return node.args[1:2] == ("shape",) if node.target is getattr else node.target in ("size", "dim")


def _mean_is_global(node: fx.Node) -> bool:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
