"""Which modules may lose their stride: pools, and the convolutions and DAU layers that stride."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from torch import fx, nn

from daukit.errors import in_words_of_caller
from daukit.nn import DAUConv2d
from daukit.rescale.graph import pool_of, step_of


def check_pools(model: nn.Module, graph: fx.Graph, names: Sequence[str]) -> tuple[str, ...]:
    """``names`` without repetitions.

    Raises:
        ValueError: one of them is not a pool that the network calls and whose stride is one number above 1.
    """
    return _check(model, graph, names, "pool", lambda module: pool_of(module) is not None)


def check_strides(model: nn.Module, graph: fx.Graph, names: Sequence[str]) -> tuple[str, ...]:
    """``names`` without repetitions.

    Raises:
        ValueError: one of them is not a convolution or DAU layer that the network calls and whose stride is one number
            above 1.
    """
    return _check(model, graph, names, "strided layer", is_layer)


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is a layer whose stride can be taken."""
    return type(module) in (nn.Conv2d, DAUConv2d)


def called_modules(graph: fx.Graph) -> list[str]:
    """Names of the modules that the network calls, in that order."""
    return list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module"))


def _check(
    model: nn.Module, graph: fx.Graph, names: Sequence[str], noun: str, fits: Callable[[nn.Module], bool]
) -> tuple[str, ...]:
    known = dict(model.named_modules())
    fitting = [name for name in called_modules(graph) if fits(model.get_submodule(name))]
    # A network has many convolutions that do not stride, and they are no answer.
    offered = [name for name in fitting if pool_of(known[name]) is not None or step_of(known[name]) != (1, 1)]
    for name in names:
        near = difflib.get_close_matches(name, offered, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = f"({noun}s: {', '.join(offered) or 'none'})"
        if name not in known:
            raise ValueError(f"there is no {noun} {name!r}{hint} {listed}")
        if name not in fitting:
            kind = type(known[name]).__name__
            raise ValueError(
                f"{name!r} is a {kind}, not a {noun} that the network calls{hint or _other(known[name], noun)} {listed}"
            )
        step = step_of(known[name])
        if step == (1, 1):
            raise ValueError(f"{noun} {name!r} has stride 1 already: there is no resolution to gain {listed}")
        if step[0] != step[1]:
            raise ValueError(f"{noun} {name!r} has stride {step}; rescaling needs the same stride on both axes")
    return tuple(dict.fromkeys(names))


def _other(module: nn.Module, noun: str) -> str:
    """Where a module belongs that strides, but is no ``noun``."""
    is_pool = pool_of(module) is not None
    if step_of(module) == (1, 1) or is_pool == (noun == "pool"):
        return ""
    how = in_words_of_caller("names", "--remove-pool") if is_pool else in_words_of_caller("strides", "--remove-stride")
    return f"; use {how}"
