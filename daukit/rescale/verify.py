"""The proof by numbers: both networks on the same noise, compared at the positions that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daukit.checkpoint import Checkpoint, build_model
from daukit.models.structure import Description, describe
from daukit.rescale.graph import input_channels, trace, values_at
from daukit.rescale.names import check_pools, check_strides
from daukit.rescale.plan import plan
from daukit.rescale.pools import known_input_size, remove_pools
from daukit.rescale.report import MODES, HeadPadding, Mode, RescaleReport
from daukit.rescale.surgery import head_position

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
    strides: Sequence[str] = (),
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Difference:
    """Compare the network before with what ``remove_pools`` made of it, in float64 and eval mode.

    Both see the same two images of N(0, 1) noise. Behind a global pool the networks differ by design; there, what that
    pool reads is compared.

    Args:
        before: the checkpoint before.
        after: what ``remove_pools`` made of it.
        pools: the names of pools that were given to it.
        strides: the names of layers that were given to it.
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
    steps = plan(coarse, graph, (*check_pools(coarse, graph, pools), *check_strides(coarse, graph, strides)))
    ends, position = steps.ends, head_position(_descriptions(fine, steps.heads))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, input_channels(coarse, graph), *size, generator=generator, dtype=torch.float64).to(device)
    old, new = values_at(coarse, graph, ends, noise), values_at(fine, trace(fine), ends, noise)
    pairs = [
        _common(old[node], new[node], spread, position if node in steps.predictions else None)
        for node, spread in ends.items()
    ]
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    relative = max(_share(float((a - b).abs().max()), float(a.abs().max())) for a, b in pairs)
    positions = sum(_positions(a) for a, _ in pairs)
    return Difference(largest, relative, positions, sum(map(_positions, old.values())) - positions, size)


def compare_modes(
    before: Checkpoint,
    after: Checkpoint,
    report: RescaleReport,
    *,
    head_padding: HeadPadding = "valid",
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[Mode, Difference | str]:
    """``compare`` for both modes: of ``after``, which ``report`` describes, and of what the other mode would make.

    Args:
        before: the checkpoint before.
        after: what ``remove_pools`` made of it.
        report: what it said.
        head_padding: as it was given to ``remove_pools``.
        model: as in ``compare``.
        input_size: as in ``compare``.
        seed: as in ``compare``.
        device: as in ``compare``.

    Returns:
        {mode: difference}, or why the other mode cannot be had.

    Raises:
        ValueError: as in ``compare``.
    """
    results: dict[Mode, Difference | str] = {}
    for mode in MODES:
        made = after
        if mode != report.mode:
            try:
                made, _ = remove_pools(
                    before, report.pools, mode, strides=report.strides, head_padding=head_padding, model=model,
                    input_size=input_size,
                )  # fmt: skip
            except ValueError as error:
                results[mode] = str(error)
                continue
        results[mode] = compare(
            before, made, report.pools, strides=report.strides, model=model, input_size=input_size, seed=seed,
            device=device,
        )  # fmt: skip
    return results


def _descriptions(network: nn.Module, names: Sequence[str]) -> Iterator[Description]:
    for name in names:
        description = describe(network.get_submodule(name))
        assert description is not None  # remove_pools made it
        yield description


def _common(coarse: Tensor, fine: Tensor, spread: int, position: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Both maps at the positions that both have, (N, C, H, W); a vector is a map of one position, ``position``."""
    coarse, fine = (x[..., None, None] if x.dim() == 2 else x for x in (coarse, fine))
    top, left = position or (0, 0)
    fine = fine[..., top::spread, left::spread]
    height, width = min(coarse.shape[-2], fine.shape[-2]), min(coarse.shape[-1], fine.shape[-1])
    return coarse[..., :height, :width], fine[..., :height, :width]


def _positions(map: Tensor) -> int:
    return map.shape[-2] * map.shape[-1] if map.dim() == 4 else 1


def _share(part: float, whole: float) -> float:
    return part / whole if whole else part
