"""One step of a training: gradients of a batch, and what the optimiser makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from daukit.datasets import Batch
from daukit.distributed import ALONE, Ranks
from daukit.nn import project_displacements
from daukit.tasks.task import Result, Task
from daukit.training.options import TrainingOptions


def check_shares(options: TrainingOptions, ranks: Ranks) -> None:
    """Raise ``ValueError`` if a batch has fewer images than there are processes."""
    if options.batch_size < ranks.size:
        raise ValueError(
            f"batch_size ({options.batch_size}) is divided among {ranks.size} processes; give {ranks.size} or more"
        )


def learn(
    model: nn.Module,
    task: Task[Result],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    options: TrainingOptions,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Do one step at the rates that the optimiser has; return the mean loss of the batch's images, without a history.

    The gradient is that of the mean over the batch's images, in however many parts it is computed, and over however
    many processes their images are spread. Under autocast the network computes in bfloat16, and its parameters,
    displacements too, and their gradients stay float32.
    """
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for part in _parts(batch, options, ranks):
        kind = batch.images.device.type
        with torch.autocast(kind, torch.bfloat16) if options.precision == "bf16" else nullcontext():
            loss = task.loss(model, part, reduction="mean" if len(part) else "sum")  # the mean of nothing is NaN
        # Before the backward: common statistics of batch norms hand gradients to other processes.
        if not ranks.is_alone:
            loss = loss * task.weight(part)
        elif len(part) != len(batch):
            loss = _weighted(loss, task.weight(part), task.weight(batch))
        loss.backward()
        losses.append(loss.detach())
    if not losses:  # there were fewer images than processes
        losses.append(torch.zeros((), device=batch.images.device))
    total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    if not ranks.is_alone:
        total = _add_up(model, total, task.weight(batch), ranks)
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    project_displacements(model)
    if not ranks.is_alone:
        ranks.take_from_first(list(model.buffers()))
    return total


def _parts(batch: Batch, options: TrainingOptions, ranks: Ranks) -> Iterator[Batch]:
    """The parts of a batch that are in memory one after another.

    Among several processes they are equally many in each where one waits for the others at every part.
    """
    number = options.accumulate
    if ranks.is_alone and number == 1:
        yield batch
        return
    pieces: Iterable[tuple[Tensor, Tensor]]
    if ranks.is_alone:
        size = -(-len(batch) // number)
        pieces = zip(batch.images.split(size), batch.targets.split(size), strict=True)
    else:
        pieces = zip(batch.images.tensor_split(number), batch.targets.tensor_split(number), strict=True)
    for images, targets in pieces:
        if len(images) or options.sync_batch_norm:
            yield Batch(images, targets)


def _add_up(model: nn.Module, loss: Tensor, weight: float | Tensor, ranks: Ranks) -> Tensor:
    """Make the gradients of all processes those of the mean over all their images; return the mean loss.

    All numbers are added in one go and in an order that is always the same, also after a run was resumed:
    ``DistributedDataParallel`` orders gradients by when they came in its first step.

    Args:
        model: with gradients of the sum of the losses of this process's images, or none at all.
        loss: that sum.
        weight: how much these images count.
        ranks: the processes.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    reached = ranks.any_of([parameter.grad is not None for parameter in learning])
    used = [parameter for parameter, yes in zip(learning, reached, strict=True) if yes]
    dtype = torch.float64 if any(parameter.dtype == torch.float64 for parameter in used) else torch.float32
    grads = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in used]
    ends = [loss.to(dtype).reshape(1), torch.as_tensor(weight, dtype=dtype, device=loss.device).reshape(1)]
    sums = ranks.add(torch.cat([*(grad.to(dtype).flatten() for grad in grads), *ends]))
    means = sums[:-1] / _at_least_one(sums[-1])
    parts: Sequence[Tensor] = means.split([*(grad.numel() for grad in grads), 1])
    for parameter, part in zip(used, parts[:-1], strict=True):
        parameter.grad = part.view(parameter.shape).to(parameter.dtype)
    return parts[-1].reshape(())


def _weighted(loss: Tensor, weight: float | Tensor, whole: float | Tensor) -> Tensor:
    """The part of a loss that its share of the whole weight makes."""
    if isinstance(weight, Tensor):
        return loss * weight / _at_least_one(whole)  # a quotient of two whole numbers would be of 32 bits
    return loss * (weight / whole)


def _at_least_one(weight: float | Tensor) -> float | Tensor:
    """A divisor: pictures without one pixel of a class have no weight, and their losses are 0."""
    return weight.clamp(min=1) if isinstance(weight, Tensor) else max(weight, 1)


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
