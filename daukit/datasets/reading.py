"""Reading with several threads: the images of a batch at once, and batches before they are asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

from daukit.datasets.base import Batch, Dataset
from daukit.datasets.memory import ImageDataset

_THREADS = max(2, min(8, os.cpu_count() or 1))  # two on one core: one waits for the disk
_AHEAD = 2
"""Batches that are read while one is worked on: enough, as each is read by all threads, and each takes memory."""

Read = TypeVar("Read")


def read_all(read: Callable[[int], Read], places: Sequence[int]) -> list[Read]:
    """What ``read`` makes of each place, in their order. Decoders work without Python's lock, so threads do it."""
    if len(places) == 1:
        return [read(places[0])]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, places))


def read_ahead(dataset: Dataset, parts: Iterable[Tensor | slice]) -> Generator[Batch, None, None]:
    """The batches of ``parts``, in their order. One thread reads the next ones, unless images are in memory already.

    A part may be empty. What a batch has does not depend on when it is read. A picture that cannot be read is an error
    when its batch is asked for.
    """
    if isinstance(dataset, ImageDataset):
        yield from (dataset.batch(part) for part in parts)
        return
    pool = ThreadPoolExecutor(1)
    coming: deque[Future[Batch]] = deque()
    try:
        for part in parts:
            coming.append(pool.submit(_batch, dataset, part))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batch(dataset: Dataset, part: Tensor | slice) -> Batch:
    if not isinstance(part, Tensor) or len(part):
        return dataset.batch(part)
    one = dataset.batch(slice(1))  # a data set need not know how to make a batch of none
    return Batch(one.images[:0], one.targets[:0])
