"""Drop channels that no longer matter: no layer reads them, or they carry the same value for every image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from daukit.channels.flow import Flow, follow
from daukit.channels.narrowing import Layer, narrowed_norm, reads, without_inputs, without_outputs
from daukit.checkpoint import Checkpoint, build_model, derives, from_model
from daukit.errors import NetworkError, in_words_of_caller
from daukit.models.graph import trace
from daukit.models.inputs import TRIAL_SIZES, known_input_size, noise_for
from daukit.models.record import record_of
from daukit.models.replacing import replace_everywhere
from daukit.models.running import copy_of, dtype_of, largest_difference, run
from daukit.results import Count


@dataclass
class LayerChannels:
    """Output channels of one layer, by their number before anything was dropped.

    Attributes:
        name: the layer whose output channels these are.
        dropped: channels that are gone.
        folded: those of them whose constant went into the bias of the layers behind.
        constant: values of channels that are constant but stay, since no bias can stand for them, by number.
        reason: why constant channels stay; null where there are none.
    """

    name: str
    dropped: list[Count]
    folded: list[Count]
    constant: dict[int, float]
    reason: str | None


@dataclass(frozen=True)
class _Verdict:
    """The channels of a layer that can go, and those of them that a bias must stand for: bool (channels,) each."""

    droppable: Tensor
    folded: Tensor
    reason: str | None


@derives
def drop_channels(checkpoint: Checkpoint, *, model: str | None = None) -> tuple[Checkpoint, tuple[LayerChannels, ...]]:
    """Drop channels that no layer reads, whose activation is exactly zero, or whose constant a bias can stand for.

    They go through batch norms and out of the layers that read them, again until there are no more; the network's
    output is the same, which is seen by running both networks where the input's size is known. A layer keeps at least
    one channel.

    Args:
        checkpoint: what to narrow, a path or a model likewise; it is not changed.
        model: as in ``daukit.load``; this needs the network.

    Returns:
        The narrower checkpoint, and what became of the layers that have something to tell.

    Raises:
        ValueError: the network's forward cannot be traced, or it says something else without these channels.
        CheckpointError: the network cannot be built.
    """
    network = build_model(checkpoint, model=model)
    graph = trace(network, "dropping channels", f"Prune without {_in_words()}")
    told: dict[str, LayerChannels] = {}
    numbers: dict[str, Tensor] = {}  # of the channels that are left, what they were at first
    while _drop_once(network, graph, told, numbers):
        pass  # what the other layers carry may have changed
    entries = tuple(entry for entry in told.values() if entry.dropped or entry.constant)
    dropped = {entry.name: len(entry.dropped) for entry in entries if entry.dropped}
    if not dropped:
        return checkpoint, entries
    _check_same(build_model(checkpoint, model=model), network, folds=any(entry.folded for entry in entries))
    narrowed = from_model(network)
    source = Checkpoint(narrowed.header, narrowed.tensors, checkpoint.path, checkpoint.digest)
    return source.derive("drop-channels", {"dropped": dropped}), entries


def _in_words() -> str:
    return in_words_of_caller("drop_channels", "--drop-channels")


def _check_same(before: nn.Module, after: nn.Module, folds: bool) -> None:
    """Run both networks on noise, in double precision, and refuse what is not the same.

    Raises:
        ValueError: their outputs differ; where a bias was rounded to stand for channels, by more than half the digits.
    """
    limit = torch.finfo(dtype_of(before)).eps ** 0.5 if folds else 1e-6
    record = record_of(before)
    size = known_input_size(record.architecture, record.preprocessing) if record is not None else None
    first, second = before.double(), copy_of(after).double()
    for one in (size,) if size is not None else ((side, side) for side in TRIAL_SIZES):
        image = noise_for(first, 1, one, 0)
        try:
            run(first, image)
        except NetworkError:
            continue  # a size that the network does not take
        difference = largest_difference(first, second, image)
        if not difference <= limit:
            raise ValueError(
                f"without the channels to drop, the network's outputs differ by {difference:.2g} of the largest, where "
                f"{limit:.2g} is allowed: something in it depends on them unseen; prune without {_in_words()}"
            )
        return


def _drop_once(network: nn.Module, graph: fx.Graph, told: dict[str, LayerChannels], numbers: dict[str, Tensor]) -> bool:
    """Narrow the first layer that can be narrowed; return False where there is none."""
    for name, flow in follow(network, graph).items():
        verdict = _judge(network, flow)
        number = numbers.setdefault(name, torch.arange(flow.produced.numel()))
        entry = told.setdefault(name, LayerChannels(name, [], [], {}, None))
        stays = ~flow.produced.isnan() & ~verdict.droppable
        entry.constant = dict(zip(number[stays].tolist(), flow.produced[stays].tolist(), strict=True))
        entry.reason = verdict.reason if entry.constant else None
        if bool(verdict.droppable.any()):
            entry.dropped = sorted([*entry.dropped, *number[verdict.droppable].tolist()])
            entry.folded = sorted([*entry.folded, *number[verdict.folded].tolist()])
            numbers[name] = number[~verdict.droppable]
            _narrow(network, flow, verdict.droppable)
            return True
    return False


def _judge(network: nn.Module, flow: Flow) -> _Verdict:
    """Judge which of the channels that ``flow`` follows can go."""
    folded = torch.zeros(flow.produced.numel(), dtype=torch.bool)
    if flow.blocked is not None:
        return _Verdict(folded, folded, flow.blocked)
    droppable, reason = ~folded, None
    for reader, carried in flow.readers.items():
        layer = network.get_submodule(reader)
        assert isinstance(layer, Layer)
        matters = reads(layer, carried.numel()) & (carried != 0)  # also where it is unknown, NaN
        known = matters & ~carried.isnan()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and set(layer.padding) == {0}):
            folded |= known
            matters &= ~known
        elif bool(known.any()):
            reason = f"{reader} reads zeros outside the image, so no bias can stand for a constant"
        droppable &= ~matters
    if bool(droppable.all()):
        droppable[0] = False
        reason = reason or "a layer keeps at least one channel"
    return _Verdict(droppable, folded & droppable, reason or "it is no constant for every layer that reads it")


def _narrow(network: nn.Module, flow: Flow, dropped: Tensor) -> None:
    """Take the channels ``dropped``, bool (channels,), out of everything that ``flow`` goes through."""
    keep = (~dropped).nonzero()[:, 0]
    layer = network.get_submodule(flow.producer)
    assert isinstance(layer, Layer)
    replace_everywhere(network, flow.producer, without_outputs(layer, keep))
    for name in flow.norms:
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        replace_everywhere(network, name, narrowed_norm(norm, keep))
    for name, carried in flow.readers.items():
        reader = network.get_submodule(name)
        assert isinstance(reader, Layer)
        constants = torch.where(dropped & ~carried.isnan(), carried, 0.0)
        replace_everywhere(network, name, without_inputs(reader, keep, constants))
