"""Time layers and networks on a GPU, beside its limits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from daukit import gpu_benchmark
from daukit.gpu_benchmark import Timed
from daukit.ops import tune
from daukit.results import Positive, Progress

NETWORKS = {"shallow": (128, 1, 28, 28), "resnet50": (32, 3, 224, 224)}
"""Networks whose training step is timed, with the shape of their input."""


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """Limits of a device at the clocks that it reports.

    Attributes:
        flops_per_second: float32 operations per second; None where the device does not tell.
        bytes_per_second: bytes per second of its memory; None where the device does not tell.
    """

    flops_per_second: Positive | None
    bytes_per_second: Positive | None


@dataclass(frozen=True, kw_only=True)
class GpuTimes:
    """Times of layers and networks on a GPU.

    Attributes:
        device: name of the device.
        torch: version of torch.
        limits: limits of the device.
        tuned: True where each way was timed first, and the times kept for later processes.
        measured: times by layer or network, and by task.
    """

    device: str
    torch: str
    limits: DeviceLimits
    tuned: bool
    measured: dict[str, dict[str, Timed]]


def time_on_gpu(
    device_name: str,
    shapes: Sequence[tuple[int, int, int, int]] = (),
    *,
    networks: bool = True,
    tuned: bool = False,
    rounds: int = 9,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> GpuTimes:
    """Time layers and networks on a device, and check the results of the layers.

    Args:
        device_name: torch's name of the device.
        shapes: (batch, in_channels, out_channels, height = width) of each layer; ``gpu_benchmark.SHAPES`` if there is
            none.
        networks: whether to time ``NETWORKS``, too.
        tuned: time each way of their DAU layers first, by ``daukit.tune``, and keep what was measured.
        rounds: interleaved rounds.
        seed: seed of inputs and parameters.
        on_progress: called with the share done.

    Raises:
        DaukitError: a result is wrong.
    """
    device = torch.device(device_name)
    shapes = shapes or gpu_benchmark.SHAPES
    limits = DeviceLimits(**gpu_benchmark.device_peaks(device))
    measured: dict[str, dict[str, Timed]] = {}

    def add(name: str, times: dict[str, Timed]) -> None:
        measured[name] = times
        if on_progress is not None:
            on_progress(len(measured) / (len(shapes) + len(NETWORKS) * networks), name)

    with tune(save=True) if tuned else nullcontext():
        for shape in shapes:
            times = gpu_benchmark.bench_layer(shape, device, rounds=rounds, seed=seed)
            add(f"layer {','.join(map(str, shape))}", times)
        for network, size in NETWORKS.items() if networks else ():
            add(network, gpu_benchmark.bench_network(network, size, device, rounds=rounds))
    return GpuTimes(device=_name(device), torch=str(torch.__version__), limits=limits, tuned=tuned, measured=measured)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
