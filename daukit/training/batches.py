"""The batches of a training, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from daukit.datasets import Batch, Dataset
from daukit.transforms import epoch_generator

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

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch; ``number`` counts from 0."""
        generator = epoch_generator(self.seed, number)
        for indices in torch.randperm(len(self.dataset), generator=generator).split(self.size):
            yield self.transform(self.dataset.batch(indices).to(self.device), generator)
