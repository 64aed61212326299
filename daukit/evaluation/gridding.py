"""Measure the gridding of a network's score maps on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import nn

from daukit.datasets import Dataset
from daukit.distributed import ALONE, Ranks
from daukit.evaluation.loop import own_batches
from daukit.models.running import evaluating
from daukit.tasks import Gridding, GridEnergy, Segmentation


def measure_gridding(
    model: nn.Module,
    task: Segmentation,
    dataset: Dataset,
    periods: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    on_batch: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Gridding, ...]:
    """Measure how much of the score maps of ``model`` repeats with grids, in eval mode (docs/math.md, section 8).

    Args:
        model: a network that segments; its method ``scores`` gives the maps before they are resized to the image, or
            its forward where that gives fewer positions than the image has pixels.
        task: what it was trained for.
        dataset: images; their targets do not matter.
        periods: of the grids, in positions of the maps, each from 2 to 64.
        device: as in ``evaluate``.
        on_batch: as in ``evaluate``.
        ranks: as in ``evaluate``.

    Raises:
        ValueError: a period is out of its bounds.
        DataError: the network does not tell its scores from scores of all pixels, or no map is large enough.
    """
    grids = [GridEnergy(period) for period in periods]
    with evaluating(model.to(device)), torch.no_grad():
        with closing(own_batches(dataset, None, device, on_batch, ranks)) as own:
            for batch in own:
                maps = task.score_maps(model, batch.images)
                for grid in grids:
                    grid.add(maps)
    return tuple(ranks.merged(grid).result() for grid in grids)
