"""Options of a training, and the result of an epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training; the defaults follow section 4.1 of the paper.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: on convolution, linear and DAU weights only.
        mu_lr_factor: displacements learn at ``mu_lr_factor * lr``.
        schedule: ``"step"`` multiplies the rates by ``gamma`` at every milestone, ``"cosine"`` lowers them to zero.
        milestones: epochs after which ``"step"`` acts.
        gamma: factor of ``"step"``.
        mirror: mirror each training image left to right with probability 1/2 (section 4.2).
        shift: move each training image by up to this many pixels along both axes.
        seed: of the initial weights, of the order of the images and of their random changes.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mu_lr_factor: float = 500.0
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (75,)
    gamma: float = 0.1
    mirror: bool = False
    shift: int = 0
    seed: int = 0

    def rate(self, progress: float) -> float:
        """Factor on all learning rates after ``progress`` epochs."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress / self.epochs))
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch, a line of the log.

    Attributes:
        epoch: its number, from 1.
        lr: learning rate at its start.
        train_loss: mean loss over the training images, while they were learnt from.
        test_loss: mean loss over the test images after it.
        test_accuracy: share of the test images that are classified correctly after it.
        seconds: time that it took.
    """

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float


def history_arguments(options: TrainingOptions, results: list[EpochResult]) -> dict[str, Any]:
    """The arguments of the history entry of a checkpoint that a training made."""
    arguments = {**asdict(options), "milestones": list(options.milestones)}
    if results:
        arguments["test_accuracy"] = results[-1].test_accuracy
    return arguments
