"""The proof by numbers: both networks on the same noise, compared at the positions that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, build_model
from daukit.rescale.graph import check_pools, input_channels, plan, trace, values_at
from daukit.rescale.pools import known_input_size

EXACT_LIMIT = 1e-6
"""Largest relative difference that mode ``exact`` may show."""


@dataclass(frozen=True)
class Difference:
    """How far two networks are apart at the positions that both have.

    Attributes:
        largest: largest absolute difference.
        relative: the same, as a share of the largest absolute value of the network before.
        positions: positions compared in every channel.
        missing: positions of the network before that the other one lacks.
        input_size: (height, width) of the noise.
    """

    largest: float
    relative: float
    positions: int
    missing: int
    input_size: tuple[int, int]


def compare(
    before: Checkpoint,
    after: Checkpoint,
    pools: Sequence[str],
    *,
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Difference:
    """Compare the network before with the one from which ``remove_pools`` took ``pools``, in float64 and eval mode.

    Both see the same two images of N(0, 1) noise. Behind a global pool the networks differ by design; there, what that
    pool reads is compared.

    Args:
        before: the checkpoint before.
        after: what ``remove_pools`` made of it.
        pools: the names that were given to it.
        model: as in ``daukit.load``.
        input_size: (height, width) of the noise, where the file does not say.
        seed: of the noise.
        device: where to run them.

    Raises:
        ValueError: the input size is unknown, or a network cannot be run on it.
    """
    size = input_size or known_input_size(before)
    if size is None:
        raise ValueError("the file does not tell the network's input size; pass input_size=(height, width)")
    coarse, fine = (build_model(checkpoint, model=model).double().to(device) for checkpoint in (before, after))
    graph = trace(coarse)
    ends = plan(coarse, graph, check_pools(coarse, graph, pools)).ends
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, input_channels(coarse, graph), *size, generator=generator, dtype=torch.float64).to(device)
    old, new = values_at(coarse, graph, ends, noise), values_at(fine, trace(fine), ends, noise)
    pairs = [_common(old[node], new[node], spread) for node, spread in ends.items()]
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    relative = max(_share(float((a - b).abs().max()), float(a.abs().max())) for a, b in pairs)
    positions = sum(_positions(a) for a, _ in pairs)
    return Difference(largest, relative, positions, sum(map(_positions, old.values())) - positions, size)


def _common(coarse: Tensor, fine: Tensor, spread: int) -> tuple[Tensor, Tensor]:
    """Both maps at the positions that both have, (N, C, H, W); a vector is a map of one position."""
    coarse, fine = (x[..., None, None] if x.dim() == 2 else x for x in (coarse, fine))
    fine = fine[..., ::spread, ::spread]
    height, width = min(coarse.shape[-2], fine.shape[-2]), min(coarse.shape[-1], fine.shape[-1])
    return coarse[..., :height, :width], fine[..., :height, :width]


def _positions(map: Tensor) -> int:
    return map.shape[-2] * map.shape[-1] if map.dim() == 4 else 1


def _share(part: float, whole: float) -> float:
    return part / whole if whole else part
