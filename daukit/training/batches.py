"""The batches of a training, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from daukit.datasets import Batch, Dataset, read_ahead
from daukit.distributed import ALONE, Ranks
from daukit.transforms import epoch_generator, in_epoch


class Transform(Protocol):
    """A random change of images."""

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Choose the changes of ``number`` images, one row each; the generator, on the CPU, is the source of chance."""

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Change each image as its row says."""


@dataclass(frozen=True)
class Batches:
    """All images of a data set once an epoch, in a random order, changed at random.

    An epoch's batches depend on the seed and the number of the epoch alone, so that a resumed run has the same ones.
    Where several processes learn, each reads its share of every batch, and no other image; a share may be empty.

    Attributes:
        dataset: where they come from.
        size: images in each but the last one.
        transform: changes them.
        seed: of order and changes.
        device: where batches go before they are changed.
        ranks: who shares them.
    """

    dataset: Dataset
    size: int
    transform: Transform
    seed: int
    device: str | torch.device = "cpu"
    ranks: Ranks = ALONE

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.dataset) // self.size)

    def images(self, step: int) -> int:
        """Images in the whole batch of a step of an epoch."""
        return min(self.size, len(self.dataset) - step * self.size)

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
        shares = [of.ranks.share(len(indices)) for indices in self._left]
        own = [indices[share] for indices, share in zip(self._left, shares, strict=True)]
        with closing(read_ahead(self._dataset, own)) as ahead:
            for indices, share, batch in zip(self._left, shares, ahead, strict=True):
                drawn = of.transform.draw(len(indices), self._generator)
                yield of.transform.apply(batch.to(of.device), drawn[share])

    @property
    def random(self) -> Tensor:
        """State of the source of chance behind the last batch that was taken: it goes on with the next one.

        It is the same in all processes.
        """
        return self._generator.get_state()
