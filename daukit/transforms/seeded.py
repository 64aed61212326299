"""Random numbers that depend on where a training is, and on nothing that came before."""

from __future__ import annotations

import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The source of an epoch's random choices, on the CPU: a run that resumes makes the same ones.

    Args:
        seed: of the training.
        epoch: its number, from 0.
    """
    number = seed * 100_003 + epoch
    return torch.Generator().manual_seed((number + 2**63) % 2**64 - 2**63)  # torch takes no more than 64 bits
