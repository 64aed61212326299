"""Schedules: the factor on all learning rates as a function of how far a training is, without any state."""

from __future__ import annotations

import math
from collections.abc import Sequence


def step_rate(progress: float, milestones: Sequence[int], gamma: float) -> float:
    """``gamma`` to the power of the milestones that are behind.

    Args:
        progress: epochs so far, with the share of the one that goes on.
        milestones: epochs.
        gamma: factor of each.
    """
    return gamma ** sum(progress >= milestone for milestone in milestones)


def cosine_rate(progress: float, epochs: int) -> float:
    """Half a cosine, from 1 at the start to 0 after ``epochs``; ``progress`` as in ``step_rate``."""
    return 0.5 * (1 + math.cos(math.pi * progress / epochs))


def poly_rate(progress: float, epochs: int, power: float) -> float:
    """The share of ``epochs`` that is left, to the power of ``power``; ``progress`` as in ``step_rate``."""
    return float(max(1 - progress / epochs, 0.0) ** power)


def warm_up_rate(progress: float, epochs: float) -> float:
    """A line from 0 at the start to 1 after ``epochs``, and 1 from then on; ``progress`` as in ``step_rate``."""
    return min(progress / epochs, 1.0) if epochs else 1.0
