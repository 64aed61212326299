"""A plan of the strides to remove, from a second network: the same modules, but coarser maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from daukit.checkpoint import Checkpoint, build_model, takes_any
from daukit.models.factory import build_architecture, shared_options
from daukit.models.graph import called_modules
from daukit.models.specs import architecture_of
from daukit.rescale.plan import plan
from daukit.rescale.reductions import Reduction, is_counted, reductions
from daukit.rescale.strided import check_pools, check_strides, pool_of, stride_of, trace
from daukit.results import Size


@dataclass(frozen=True)
class StridePlan:
    """The pools and strides to remove so that a network's maps are as fine as those of another one.

    Attributes:
        pools: names of pools, for ``remove_pools``.
        strides: names of layers that stride, for ``remove_pools``.
        factors: ratio by which the map that a module reads is finer in the other network, by module that both have.
        checked: modules whose ratio both networks' accumulated strides confirm; none behind global pools and resizings.
        missing: layers that the other network lacks; their ratios follow from those before them.
    """

    pools: tuple[str, ...]
    strides: tuple[str, ...]
    factors: dict[str, Size]
    checked: tuple[str, ...]
    missing: tuple[str, ...]


@takes_any
def plan_like(
    checkpoint: Checkpoint, like: str, config: Mapping[str, Any] | None = None, *, model: str | None = None
) -> StridePlan:
    """Compare a checkpoint's network with another one, module by module, and plan what gives it the other's resolution.

    A pool or layer that strides goes where the other network has it with stride 1, something that does not stride in
    its place, or nothing. The strides that both networks have accumulated must then agree at every module of both.

    Args:
        checkpoint: what is to be rescaled, a path or a model likewise.
        like: the other network: a name of ``daukit.models``, ``"package.module:factory"`` or ``"file.py:factory"``.
        config: its options; others are those of the checkpoint's network, as far as it has them.
        model: as in ``daukit.load``, for files of a network of your own.

    Raises:
        ValueError: there is no such network or option; the networks do not differ by strides that one of them lacks.
        CheckpointError: the file does not fit its network.
        NetworkError: the other network cannot be imported or built.
    """
    network, other = build_model(checkpoint, model=model), _build(checkpoint, like, dict(config or {}), model)
    graph, other_graph = trace(network), trace(other)
    removed = _missing_strides(network, graph, other, like)
    are_pools = {name: pool_of(network.get_submodule(name)) is not None for name in removed}
    pools = check_pools(network, graph, [name for name in removed if are_pools[name]])
    strides = check_strides(network, graph, [name for name in removed if not are_pools[name]])
    factors = plan(network, graph, removed).factors
    there = set(called_modules(other_graph))
    checked = _check(factors, reductions(network, graph), reductions(other, other_graph), like)
    return StridePlan(
        pools=pools,
        strides=strides,
        factors={name: factor for name, factor in factors.items() if name in there},
        checked=checked,
        missing=tuple(name for name in factors if name not in there and name not in removed),
    )


def _build(checkpoint: Checkpoint, like: str, config: dict[str, Any], model: str | None) -> nn.Module:
    """The other network, with the options of the checkpoint's where ``config`` does not say."""
    options = shared_options(checkpoint.header.architecture, like, config, model=model)
    try:
        return build_architecture(architecture_of(like, options))
    except TypeError as error:
        raise ValueError(f"cannot build {like} with {options}: {error}") from None


def _missing_strides(network: nn.Module, graph: fx.Graph, other: nn.Module, like: str) -> tuple[str, ...]:
    """Modules of ``network`` that stride, and do not in ``other``."""
    modules, called = dict(other.named_modules()), called_modules(graph)
    if not any(name in modules for name in called if is_counted(network.get_submodule(name))):
        raise ValueError(f"{like} shares no layer with the file's network; like takes another definition of the same")
    removed = []
    for name in called:
        stride, stride_there = stride_of(network.get_submodule(name)), stride_of(modules.get(name, nn.Identity()))
        if stride == stride_there:
            continue
        if stride_there != (1, 1):
            raise ValueError(
                f"{name!r} has stride {stride} and, in {like}, {stride_there}; a stride can be removed, not changed"
            )
        removed.append(name)
    if not removed:
        raise ValueError(f"{like} has every stride of the file's network; there is no resolution to gain")
    return tuple(removed)


def _check(
    factors: Mapping[str, int],
    here: Mapping[str, Reduction | None],
    there: Mapping[str, Reduction | None],
    like: str,
) -> tuple[str, ...]:
    """The modules whose accumulated strides in both networks are known; they must differ by ``factors``."""
    checked = []
    for name, factor in factors.items():
        mine, other = here.get(name), there.get(name)
        if mine is None or other is None:
            continue
        if mine != (factor * other[0], factor * other[1]):
            raise ValueError(
                f"{name!r} reads a map reduced {mine} times, in {like} {other} times, but without the strides that "
                f"{like} lacks the ratio is {factor}; the two must not differ by other strides"
            )
        checked.append(name)
    return tuple(checked)
