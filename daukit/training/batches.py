"""The batches of a training, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.datasets import Batch, Dataset
from daukit.transforms import epoch_generator, in_epoch

Transform = Callable[[Batch, torch.Generator], Batch]
"""A random change of a batch; the generator, on the CPU, is the source of chance."""


@dataclass(frozen=True)
class Batches:
    """All images of a data set once an epoch, in a random order, changed at random.

    An epoch's batches depend on the seed and the number of the epoch alone, so that a resumed run has the same ones.

    Attributes:
        dataset: where they come from.
        size: images in each but the last one.
        transform: changes them.
        seed: of order and changes.
        device: where batches go before they are changed.
    """

    dataset: Dataset
    size: int
    transform: Transform
    seed: int
    device: str | torch.device = "cpu"

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.dataset) // self.size)

    def epoch(self, number: int, done: int = 0, random: Tensor | None = None) -> EpochBatches:
        """The batches of an epoch, from its start or from anywhere on.

        Args:
            number: of the epoch, from 0.
            done: batches to pass over.
            random: ``EpochBatches.random`` after these; needed where ``done`` is not 0.
        """
        return EpochBatches(self, number, done, random)


class EpochBatches:
    """The batches of one epoch; an iteration goes through those that are left."""

    def __init__(self, batches: Batches, number: int, done: int, random: Tensor | None) -> None:
        self._batches, self._dataset = batches, in_epoch(batches.dataset, batches.seed, number)
        self._generator = epoch_generator(batches.seed, number)
        order = torch.randperm(len(batches.dataset), generator=self._generator)
        self._left = order.split(batches.size)[done:]
        if random is not None:
            self._generator.set_state(random)

    def __iter__(self) -> Iterator[Batch]:
        of = self._batches
        for indices in self._left:
            yield of.transform(self._dataset.batch(indices).to(of.device), self._generator)

    @property
    def random(self) -> Tensor:
        """State of the source of chance behind the last batch that was taken: it goes on with the next one."""
        return self._generator.get_state()
