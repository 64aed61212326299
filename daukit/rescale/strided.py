"""Modules that stride: pools, convolutions and DAU layers, and whether a network's modules of these names are such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import fx, nn

from daukit.errors import in_words_of_caller
from daukit.models import graph as graphs
from daukit.models.graph import called_modules
from daukit.nn import DAUConv2d
from daukit.texts import did_you_mean

Pool = nn.MaxPool2d | nn.AvgPool2d

PADS = (nn.ConstantPad2d, nn.ZeroPad2d)
WINDOWED = (DAUConv2d, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *PADS)


def trace(model: nn.Module) -> fx.Graph:
    """The graph of ``model``, with DAU layers and padded pools whole.

    Raises:
        ValueError: the network's forward cannot be traced.
    """
    otherwise = "Factors per layer need no trace: " + in_words_of_caller("rescale_factors", "--factor LAYER=2")
    return graphs.trace(model, "removing pools", otherwise, lambda module: pool_of(module) is not None)


def pool_of(module: nn.Module) -> Pool | None:
    """The pool that ``module`` is, bare or behind its own padding with -inf; None for other modules."""
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return module
    if type(module) is nn.Sequential and len(module) == 2:
        pad, pool = module
        if isinstance(pad, nn.ConstantPad2d) and pad.value == float("-inf") and isinstance(pool, nn.MaxPool2d):
            return pool
    return None


def has_window(module: nn.Module) -> bool:
    """Tell modules that look at several positions through a window, padding included, and do nothing else."""
    return pool_of(module) is not None or type(module) in WINDOWED


def stride_of(module: nn.Module) -> tuple[int, int]:
    """The stride of a pool, a convolution or a DAU layer, as (y, x); (1, 1) for every other module."""
    strided = pool_of(module) or module
    if isinstance(strided, DAUConv2d | nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return pair(strided.stride)
    return 1, 1


def pair(value: int | Iterable[int]) -> tuple[int, int]:
    """A size that may be given once for both axes, as (y, x)."""
    y, x = (value, value) if isinstance(value, int) else value
    return y, x


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
    return _check(model, graph, names, "strided layer", lambda module: type(module) in (nn.Conv2d, DAUConv2d))


def _check(
    model: nn.Module, graph: fx.Graph, names: Sequence[str], noun: str, fits: Callable[[nn.Module], bool]
) -> tuple[str, ...]:
    known = dict(model.named_modules())
    fitting = [name for name in called_modules(graph) if fits(model.get_submodule(name))]
    # A network has many convolutions that do not stride, and they are no answer.
    offered = [name for name in fitting if pool_of(known[name]) is not None or stride_of(known[name]) != (1, 1)]
    for name in names:
        hint, listed = did_you_mean(name, offered), f"({noun}s: {', '.join(offered) or 'none'})"
        if name not in known:
            raise ValueError(f"there is no {noun} {name!r}{hint} {listed}")
        if name not in fitting:
            kind = type(known[name]).__name__
            raise ValueError(
                f"{name!r} is a {kind}, not a {noun} that the network calls{hint or _other(known[name], noun)} {listed}"
            )
        stride = stride_of(known[name])
        if stride == (1, 1):
            raise ValueError(f"{noun} {name!r} has stride 1 already: there is no resolution to gain {listed}")
        if stride[0] != stride[1]:
            raise ValueError(f"{noun} {name!r} has stride {stride}; rescaling needs the same stride on both axes")
    return tuple(dict.fromkeys(names))


def _other(module: nn.Module, noun: str) -> str:
    """The argument to which a module belongs that strides, but is no ``noun``."""
    is_pool = pool_of(module) is not None
    if stride_of(module) == (1, 1) or is_pool == (noun == "pool"):
        return ""
    how = in_words_of_caller("names", "--remove-pool") if is_pool else in_words_of_caller("strides", "--remove-stride")
    return f"; use {how}"
