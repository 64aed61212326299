"""Interleaved timing: only ratios of one run mean anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from daukit import ops
from daukit.ops import library
from daukit.results import Positive


@dataclass(frozen=True)
class Quartiles:
    """Times of a task over the interleaved rounds, in milliseconds.

    Attributes:
        lower: lower quartile.
        median: median.
        upper: upper quartile.
    """

    lower: Positive
    median: Positive
    upper: Positive


def interleave(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Quartiles]:
    """Time the tasks in turn, ``rounds`` times after one warm-up, so that a change of the machine's pace hits all."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: quartiles(taken) for name, taken in times.items()}


def quartiles(times: Sequence[float]) -> Quartiles:
    """Quartiles of some times."""
    shares = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return Quartiles(*torch.tensor(times, dtype=torch.float64).quantile(shares).tolist())


def machine() -> dict[str, Any]:
    """Describe the machine, with its measured peak of fused multiply-adds (null without native kernels)."""
    here = ops.backends()["native"] == "available"
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "native": ops.backends()["native"],
        "instruction_set": library.instruction_set() if here else None,
        "peak_gflops": 2e-9 * library.peak() if here else None,
    }


def busy(times: Mapping[str, Quartiles], shape: Sequence[int], peak_gflops: float | None) -> str | None:
    """Say how the 3x3 convolution's times show that the machine was busy; None if they do not."""
    yardstick = times["forward conv 3x3"]
    if yardstick.upper > 1.3 * yardstick.lower:
        return f"the 3x3 convolution's times spread from {yardstick.lower:.2f} to {yardstick.upper:.2f} ms"
    batch, inputs, outputs, size = shape
    gflops = 2e-6 * 9 * batch * inputs * outputs * size**2 / yardstick.median
    if peak_gflops and gflops < 0.6 * peak_gflops:
        return f"the 3x3 convolution reaches {gflops:.0f} of {peak_gflops:.0f} GFLOP/s"
    return None


def without_grad(run: Callable[[], Tensor]) -> Callable[[], object]:
    """The task that runs without recording anything for gradients."""

    def task() -> Tensor:
        with torch.no_grad():
            return run()

    return task
