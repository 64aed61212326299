"""Trainings that have diverged: a loss that is no number, or an absurd one."""

from __future__ import annotations

import math

from daukit.errors import DaukitError, in_words_of_caller
from daukit.training.options import TrainingOptions

_ABSURD = 1e3
"""A network has diverged when its loss is this many times the loss of guessing."""


def absurd_loss(guessing: float) -> float:
    """The loss beyond which a network has diverged, if guessing has a loss of ``guessing``."""
    return _ABSURD * guessing


def check_sane(loss: float, test_loss: float, guessing: float, epoch: int, options: TrainingOptions) -> None:
    """Raise ``DaukitError`` if a loss is not finite or absurd, before the state of such an epoch is kept."""
    if not math.isfinite(test_loss):
        raise diverged(f"the loss on the test images is {test_loss} after epoch {epoch + 1}", options)
    if loss > absurd_loss(guessing):
        said = f"the loss rose to {loss:.3g} in epoch {epoch + 1}, and guessing has one of {guessing:.2g}"
        raise diverged(f"{said}: the training has diverged", options)


def diverged(what: str, options: TrainingOptions) -> DaukitError:
    """The error of a training that has diverged, as ``what`` says, with advice."""
    lr = in_words_of_caller("lr", "--lr")
    name = options.mu_option
    other, value = in_words_of_caller(name, f"--{name.replace('_', '-')}"), getattr(options, name)
    return DaukitError(f"{what}; lower the learning rate ({lr}, now {options.lr:g}) or {other} (now {value})")
