"""One step of a training: gradients of a batch, and what the optimiser makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from daukit.datasets import Batch
from daukit.nn import project_displacements
from daukit.tasks.task import Result, Task
from daukit.training.options import TrainingOptions


def learn(
    model: nn.Module, task: Task[Result], optimizer: torch.optim.Optimizer, batch: Batch, options: TrainingOptions
) -> Tensor:
    """Do one step at the rates that the optimiser has; return the mean loss of the batch's images, without a history.

    The gradient is that of the mean over the batch's images, in however many parts it is computed. Under autocast the
    network computes in bfloat16, and its parameters, displacements too, and their gradients stay float32.
    """
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for part in _parts(batch, options.accumulate):
        kind = batch.images.device.type
        with torch.autocast(kind, torch.bfloat16) if options.precision == "bf16" else nullcontext():
            loss = task.loss(model, part)
        if len(part) != len(batch):
            loss = loss * (len(part) / len(batch))
        loss.backward()
        losses.append(loss.detach())
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    project_displacements(model)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _parts(batch: Batch, number: int) -> Iterator[Batch]:
    if number == 1:
        yield batch
        return
    size = -(-len(batch) // number)
    for images, targets in zip(batch.images.split(size), batch.targets.split(size), strict=True):
        yield Batch(images, targets)


class RunningLoss:
    """The sum of the losses of an epoch's images.

    A GPU computes behind the program's back, and each look at a number waits for it: there losses are read only now and
    then, always in their order, so that the sum has the same bits.

    Attributes:
        total: sum over the images whose losses were read.
        last: the last loss that was read; NaN before the first.
    """

    EVERY = 16
    """Steps on a GPU from a look to the next."""

    def __init__(self, total: float, device: str | torch.device) -> None:
        self.total, self.last = total, float("nan")
        self._every = 1 if torch.device(device).type == "cpu" else self.EVERY
        self._waiting: list[tuple[Tensor, int]] = []

    def add(self, loss: Tensor, images: int) -> list[float]:
        """Count the mean loss of a batch; return the losses that were read, those of the last steps."""
        self._waiting.append((loss, images))
        is_first = math.isnan(self.last)  # somebody may be waiting for it
        return self.read() if is_first or len(self._waiting) >= self._every else []

    def read(self) -> list[float]:
        """Read what waits; return it."""
        values: list[float] = torch.stack([loss for loss, _ in self._waiting]).tolist() if self._waiting else []
        for value, (_, images) in zip(values, self._waiting, strict=True):
            self.total += value * images
            self.last = value
        self._waiting.clear()
        return values
