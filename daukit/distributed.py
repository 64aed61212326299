"""Several processes that do one piece of work, as torchrun starts them: who they are, sums over them, who writes.

The command line joins them where torchrun's variables are set; the library gets a ``Ranks`` as an argument, and without
one works alone. torch is imported only where there are several.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from daukit.errors import DaukitError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others. One that ended is noticed at once, since its connections close."""

_GRACE = 10.0
"""Seconds that a process which fails before it could join leaves to the first one, to say why all of them end."""

_FAILED = "daukit/failed"


class LostProcessError(DaukitError):
    """Another process of the same work has ended, or cannot be reached."""


class Mergeable(Protocol):
    """Sums that add up, as the ``Metrics`` of a task do. Instances can be pickled."""

    def merge(self, other: Self) -> None:
        """Count what the other has counted."""


Sums = TypeVar("Sums", bound=Mergeable)


@dataclass(frozen=True)
class Ranks:
    """One process among several that do the same work; by default one that is alone.

    All methods but ``share`` and ``device`` must be called by all of them in the same order: each waits for the others.

    Attributes:
        rank: number of this one, from 0.
        size: how many there are.
        local: number of this one on its machine, from 0: the GPU that it takes.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_alone(self) -> bool:
        """True where nothing is divided."""
        return self.size == 1

    @property
    def is_writer(self) -> bool:
        """True for the one that writes and prints."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """The device of this process, where all were given ``device``."""
        return f"cuda:{self.local}" if device == "cuda" and not self.is_alone else device

    def share(self, number: int) -> slice:
        """This one's part of ``number`` things in a row; the first ones have one more, the last ones maybe none."""
        each, more = divmod(number, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def any(self, flag: bool) -> bool:
        """True if ``flag`` is, for any of them."""
        return flag if self.is_alone else self.any_of([flag])[0]

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """For each of several flags: is it True for any of them?"""
        if self.is_alone:
            return list(flags)
        import torch
        from torch import distributed

        both = torch.tensor(list(flags), dtype=torch.uint8)
        with _reaching_the_others(self):
            distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
        return [bool(flag) for flag in both.tolist()]

    def wait(self) -> None:
        """Wait until all have come this far."""
        self.any(False)

    def add(self, tensor: Tensor) -> Tensor:
        """Replace the content of ``tensor`` by its sum over all of them, which has the same bits everywhere."""
        if not self.is_alone:
            from torch import distributed

            with _reaching_the_others(self):
                distributed.all_reduce(tensor)
        return tensor

    def merged(self, sums: Sums) -> Sums:
        """What all have counted, in the order of their numbers, on each of them."""
        if self.is_alone:
            return sums
        from torch import distributed

        parts: list[Any] = [None] * self.size
        with _reaching_the_others(self):
            distributed.all_gather_object(parts, sums)  # pickles, from our own processes
        whole: Sums = parts[0]
        for part in parts[1:]:
            whole.merge(part)
        return whole

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace the content of all tensors by what the first process has in them."""
        if self.is_alone or not tensors:
            return
        import torch
        from torch import distributed

        with torch.no_grad():
            parts = [tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in tensors]
            flat = torch.cat(parts)
            with _reaching_the_others(self):
                distributed.broadcast(flat, 0)
            if self.rank:
                for tensor, part in zip(tensors, flat.split([len(part) for part in parts]), strict=True):
                    # A copy, since only a tensor's own memory may be seen as another type anywhere.
                    tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))


ALONE = Ranks()
# Plain globals, as a process is one of one group: torch's own is global too.
_here = ALONE
_store: Any = None


def here() -> Ranks:
    """This process, after ``join``; before, or where there are no others, one that is alone."""
    return _here


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Read torchrun's variables.

    Raises:
        DaukitError: there are to be several processes, and a variable is missing or wrong.
    """
    size = _number(environment, "WORLD_SIZE") if "WORLD_SIZE" in environment else 1
    if size == 1:
        return ALONE
    missing = [name for name in _NEEDED if not environment.get(name)]
    if missing:
        raise DaukitError(
            f"the environment has WORLD_SIZE={size}, but no {' and no '.join(missing)}; start daukit with torchrun, "
            "which sets them, or unset WORLD_SIZE to work in one process"
        )
    rank = _number(environment, "RANK")
    if rank >= size:
        raise DaukitError(f"the environment has RANK={rank}, which must be below its WORLD_SIZE={size}")
    return Ranks(rank, size, _number(environment, "LOCAL_RANK"))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    least = 1 if name == "WORLD_SIZE" else 0
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise DaukitError(f"the environment has {name}={text!r}, which must be a whole number of at least {least}")
    return int(text)


def join(ranks: Ranks, *, on_gpus: bool = True) -> None:
    """Connect this process with the others; tensors of the CPU go through gloo, those of GPUs through NCCL.

    Args:
        ranks: from ``ranks_of``.
        on_gpus: whether GPUs may be used, where there are some.

    Raises:
        LostProcessError: one of them does not come.
    """
    global _here, _store
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    # Functions of this module have the group of its first import as a default. torch imports it with the first
    # optimizer, and a group that is held there outlives ``leave``: its threads may then abort a process that ends.
    import_module("torch.distributed.nn.functional")
    has_gpus = on_gpus and torch.cuda.is_available() and distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    with _reaching_the_others(ranks):
        _store = next(rendezvous("env://", timeout=_PATIENCE))[0]
        distributed.init_process_group(backend, store=_store, rank=ranks.rank, world_size=ranks.size, timeout=_PATIENCE)
    _here = ranks


def is_first_to_fail() -> bool:
    """True in one of the processes that call this: the one that says why all of them end."""
    if _store is None:
        try:
            is_first = ranks_of(os.environ).is_writer
        except DaukitError:  # nobody knows who is first
            is_first = True
        if not is_first:
            time.sleep(_GRACE)  # torchrun ends all of them when one ends
        return is_first
    try:
        return bool(_store.add(_FAILED, 1) == 1)
    except RuntimeError:  # whoever had the store is gone
        return True


def leave(code: int) -> None:
    """Part from the others, if there are any, and end the process with ``code`` unless that is 0.

    Threads that spoke with the others have ended then: one that outlives Python would abort the process.

    A process that fails ends at once: its connections close, which ends the others, and nothing waits for them.
    """
    if _store is None:
        return
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    from torch import distributed

    distributed.destroy_process_group()


@contextmanager
def _reaching_the_others(ranks: Ranks) -> Iterator[None]:
    """Tell that another process is gone, where torch would print where in its code it noticed."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"process {ranks.rank + 1} of {ranks.size} lost the others: one of them was killed, or cannot be reached; "
            "start all of them again"
        ) from error
