"""Print how long a forward of the study's networks takes: ``python times.py``.

Each network is prepared (``daukit.prepare``), as one that is used would be, and all take turns. Times are medians of a
forward of 32 images, beside that of the twin with 3x3 convolutions.
"""

from __future__ import annotations

import statistics
import time

import torch
from study import BATCH, NETWORKS, Method, build, snap
from torch import Tensor, nn

from daukit import prepare

ROUNDS = 101
KINDS = {
    "conv": (Method(layer="conv"), 0),
    "bilinear": (Method(), 2),
    "whole pixels": (Method(snap_at=0), 2),
    "whole pixels, 4": (Method(snap_at=0), 4),
    "whole pixels, 6": (Method(snap_at=0), 6),
}


def main() -> None:
    """Print a table in Markdown."""
    images = torch.rand(BATCH, 1, 14, 14)
    print("| units | a pair | shallow / conv | deep / conv |")
    print("|---|---|---|---|")
    ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for network in NETWORKS:
        medians = times([prepared(network, *kind) for kind in KINDS.values()], images)
        for kind, median in zip(KINDS, medians, strict=True):
            ratios[kind].append(median / medians[0])
    for kind, (_, units) in KINDS.items():
        print(f"| {kind.partition(',')[0]} | {units or ''} | {' | '.join(f'{ratio:.2f}' for ratio in ratios[kind])} |")


def prepared(network: str, method: Method, units: int) -> nn.Module:
    """An untrained network of a kind, its units where they started, or snapped."""
    torch.manual_seed(0)
    model = build(network, method, units)
    for module in model:
        if hasattr(module, "mu") and method.snap_at is not None:
            snap(module, method)  # type: ignore[arg-type]
    return prepare(model.eval())


@torch.no_grad()
def times(models: list[nn.Module], images: Tensor) -> list[float]:
    """Median seconds of a forward of each model, in turns."""
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, taken in zip(models, seconds, strict=True):
            started = time.perf_counter()
            model(images)
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


if __name__ == "__main__":
    main()
