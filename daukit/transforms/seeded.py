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


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """The source of one image's random choices in an epoch, on the CPU: the same in any batch and any process.

    Args:
        seed: of the training.
        epoch: its number, from 0.
        index: of the image in its data set.
    """
    words = torch.randint(2**62, (2,), generator=epoch_generator(seed, epoch)).tolist()
    # The factor is odd, so that the 32 bits which torch takes of a seed differ for all images of an epoch.
    number = (words[0] + index * (2 * words[1] + 1)) % 2**64
    return torch.Generator().manual_seed(number - 2**63)
