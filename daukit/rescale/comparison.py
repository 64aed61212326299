"""Both modes beside each other: how far each is from the network before."""

from __future__ import annotations

import torch

from daukit.checkpoint import Given, taken
from daukit.rescale.modes import MODES, HeadPadding, Mode
from daukit.rescale.outcome import Difference, RescaleReport
from daukit.rescale.pools import remove_pools
from daukit.rescale.verify import compare

POSITIONS = 5
"""Former positions to compare along each axis, at least."""


def compare_modes(
    before: Given,
    after: Given,
    report: RescaleReport,
    *,
    head_padding: HeadPadding = "valid",
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[Mode, Difference | str]:
    """``compare`` for both modes: of ``after``, which ``report`` describes, and of what the other mode would make.

    At least ``POSITIONS`` former positions along each axis are compared, on larger images where need be.

    Args:
        before: the checkpoint before, a path or a model likewise.
        after: what ``remove_pools`` made of it, likewise.
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
    with taken(before, "compare_modes", model) as coarse, taken(after, "compare_modes", model) as fine:
        for mode in MODES:
            made = fine
            if mode != report.mode:
                try:
                    made, _ = remove_pools(
                        coarse, report.pools, mode, strides=report.strides, head_padding=head_padding, model=model,
                        input_size=input_size,
                    )  # fmt: skip
                except ValueError as error:
                    results[mode] = str(error)
                    continue
            results[mode] = compare(
                coarse, made, report.pools, strides=report.strides, model=model, input_size=input_size,
                positions=POSITIONS, seed=seed, device=device,
            )  # fmt: skip
    return results
