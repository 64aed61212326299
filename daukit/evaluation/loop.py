"""The loop over a data set that measures a network, one batch in memory at a time. It knows no task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import torch
from torch import nn

from daukit.datasets import Batch, Dataset, read_ahead
from daukit.distributed import ALONE, Ranks
from daukit.models.running import evaluating
from daukit.tasks.task import Result, Task

BATCH_SIZE = 250


def evaluate(
    model: nn.Module,
    task: Task[Result],
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> Result:
    """Measure ``model`` in eval mode; it and its modules are left in the modes in which they came.

    Several processes divide the batches of one process among themselves, and each returns the figures of all images.

    Args:
        model: a network that the task is for.
        task: says what it predicts and how good that is.
        dataset: images and targets.
        device: where to compute; the model is moved there.
        batch_size: images at a time; default: ``BATCH_SIZE``, or one where images are of several sizes.
        on_batch: called with (images done, images in all), equally often in all processes.
        ranks: who shares the images.

    Raises:
        DataError: the network cannot take the images or predict their targets, or an image cannot be read.
    """
    metrics = task.metrics(dataset.info)
    with evaluating(model.to(device)), torch.no_grad():
        task.check_fits(model, dataset, device)
        with closing(own_batches(dataset, batch_size, device, on_batch, ranks)) as own:
            for batch in own:
                metrics.add(task.predict(model, batch.images), batch.targets)
    return ranks.merged(metrics).result()


def own_batches(
    dataset: Dataset,
    batch_size: int | None,
    device: str | torch.device,
    on_batch: Callable[[int, int], None] | None,
    ranks: Ranks,
) -> Generator[Batch]:
    """The batches that a process has of a data set, on ``device``; arguments as in ``evaluate``."""
    batch_size = batch_size or (1 if dataset.info.sizes_differ else BATCH_SIZE)
    own = _parts(dataset, batch_size)[ranks.rank :: ranks.size]
    with closing(read_ahead(dataset, own)) as ahead:
        for first in range(0, len(dataset), batch_size * ranks.size):
            batch = next(ahead, None)  # the last processes may have one less
            if batch is not None:
                yield batch.to(device)
            if on_batch is not None:
                on_batch(min(first + batch_size * ranks.size, len(dataset)), len(dataset))


def batches(
    dataset: Dataset, batch_size: int = BATCH_SIZE, device: str | torch.device = "cpu"
) -> Iterator[tuple[int, Batch]]:
    """All of a data set in its order: how many images there were so far, and a batch of them on ``device``."""
    done = 0
    with closing(read_ahead(dataset, _parts(dataset, batch_size))) as ahead:
        for batch in ahead:
            done += len(batch)
            yield done, batch.to(device)


def _parts(dataset: Dataset, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, len(dataset), batch_size)]
