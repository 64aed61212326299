"""The choice between ways by measurement, on the user's card. Where nobody measured, the rule of ``cost.py`` stands.

A pass of one geometry, dtype and precision is timed once, by each way that takes it, and the times are remembered: in
the process, and, where ``tune(save=True)`` says so, in the cache for later ones.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple

import torch

from daukit._version import __version__
from daukit.ops.contract import GivenUp, Tensors
from daukit.ops.cuda import cache
from daukit.ops.cuda.cost import Precision, Way, allowed_precision
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.geometry import Geometry

FILE = "tuning"
"""Name in the cache."""

FORMAT = 2

Times = dict[Way, float]
"""Seconds of a pass by each way that was timed; infinite where the way has not enough memory, or does not run here."""

_lock = threading.Lock()
_asked_for = 0
_times: dict[str, dict[str, Times]] = {}
"""By card and then by pass; the cache's content of each card is read when the card is first asked for."""

_dropped: set[tuple[str, str, Way]] = set()
"""Ways by card and pass that ran where they were timed, and do not run in this process."""


@contextmanager
def tune(*, save: bool = False) -> Iterator[None]:
    """Inside the block, in all threads, time each way of a layer on its GPU, and use the fastest from then on.

    A pass is timed when it first runs, never while a CUDA graph is captured. ``torch.backends.cudnn.benchmark = True``
    asks for the same.

    Args:
        save: keep what was measured for later processes, which use it without being asked.

    Example:
        >>> with daukit.tune(save=True):
        ...     model(images).sum().backward()
    """
    global _asked_for
    with _lock:
        _asked_for += 1
    try:
        yield
    finally:
        with _lock:
            _asked_for -= 1
        if save:
            _save()


def measured(tensors: Tensors, geo: Geometry, what: str, ways: Mapping[Way, Callable[[], object]]) -> Times | None:
    """Times of a pass: as remembered, or as taken now if that is asked for and possible; None where nobody measured.

    Args:
        tensors: of the call.
        geo: sizes of the call.
        what: of the passes, with the gradients that are asked for.
        ways: each runs the pass in one way.
    """
    device = tensors.input.device
    card, key = _address(tensors, geo, what)
    known = _known(card)
    times = known.get(key)
    if times is None or times.keys() != ways.keys():
        if not _is_asked_for() or _is_capturing(device):
            return None
        times = {way: _seconds(device, run) for way, run in ways.items()}
        if math.isinf(min(times.values())):
            return None
        with _lock:
            known[key] = times
    usable = {way: math.inf if (card, key, way) in _dropped else time for way, time in times.items()}
    return None if math.isinf(min(usable.values())) else usable


def drop(tensors: Tensors, geo: Geometry, what: str, way: Way) -> None:
    """Choose a way, which turned out not to run here, no more for a pass; arguments as of ``measured``."""
    _dropped.add((*_address(tensors, geo, what), way))


def is_of_use(device: torch.device) -> bool:
    """True where ways may be timed, or were: only then a call needs to look for its own."""
    return _is_asked_for() or bool(_known(LAUNCHERS[device.type].identity(device)))


def _address(tensors: Tensors, geo: Geometry, what: str) -> tuple[str, str]:
    """The card, and the pass as it is known there."""
    device, dtype = tensors.input.device, tensors.input.dtype
    ragged = tensors.unit_ptr is not None
    key = _key(what, geo, tensors.weight.numel(), ragged, dtype, allowed_precision(dtype))
    return LAUNCHERS[device.type].identity(device), key


@functools.lru_cache(maxsize=4096)
def _key(what: str, geo: Geometry, units: int, ragged: bool, dtype: torch.dtype, precision: Precision) -> str:
    return json.dumps([what, *astuple(geo), units, ragged, str(dtype).removeprefix("torch."), precision])


def _is_asked_for() -> bool:
    return _asked_for > 0 or torch.backends.cudnn.benchmark


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _seconds(device: torch.device, run: Callable[[], object]) -> float:
    try:
        return LAUNCHERS[device.type].seconds(device, run)
    except (torch.OutOfMemoryError, GivenUp):
        return math.inf


def _known(card: str) -> dict[str, Times]:
    if card not in _times:
        kept = _read().get(card, {})
        with _lock:
            _times.setdefault(card, kept)
    return _times[card]


def _read() -> dict[str, dict[str, Times]]:
    """What other processes kept, by card; nothing where there is no file of this format and version of daukit."""
    body = cache.read(FILE)
    try:
        found = json.loads(body) if body is not None else {}
        return dict(found["cards"]) if (found["format"], found["daukit"]) == (FORMAT, __version__) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _save() -> None:
    """Keep what this process knows together with what others kept meanwhile."""
    cards = _read()
    with _lock:
        for card, known in _times.items():
            cards[card] = {**cards.get(card, {}), **known}
    content = {"format": FORMAT, "daukit": __version__, "cards": cards}
    cache.keep(FILE, json.dumps(content, indent=1, sort_keys=True).encode())
