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
