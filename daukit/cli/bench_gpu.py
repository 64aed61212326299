"""``daukit bench --device cuda``: what a GPU does, beside its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from daukit.cli.progress import progress_bar
from daukit.cli.report import print_json, print_line, print_table

if TYPE_CHECKING:
    from daukit.gpu_benchmark import Timed

NETWORKS = {"shallow": (128, 1, 28, 28), "resnet50": (32, 3, 224, 224)}
"""Networks whose training step is timed, with the shape of their input."""


def bench_on_gpu(
    device_name: str, shapes: Sequence[tuple[int, int, int, int]], *, networks: bool, rounds: int, seed: int
) -> None:
    """Time layers and networks on a device and print what was measured."""
    import torch

    from daukit import gpu_benchmark

    device = torch.device(device_name)
    shapes = shapes or gpu_benchmark.SHAPES
    peaks = gpu_benchmark.device_peaks(device)
    measured: dict[str, dict[str, Timed]] = {}
    total = len(shapes) + len(NETWORKS) * networks
    with progress_bar(1) as update:
        for shape in shapes:
            name = f"layer {','.join(map(str, shape))}"
            measured[name] = gpu_benchmark.bench_layer(shape, device, rounds=rounds, seed=seed)
            update(len(measured) / total, name)
        for network, size in NETWORKS.items() if networks else ():
            measured[network] = gpu_benchmark.bench_network(network, size, device, rounds=rounds)
            update(len(measured) / total, network)
    plain = {title: {name: asdict(task) for name, task in tasks.items()} for title, tasks in measured.items()}
    print_json("bench", {"device": _name(device), "torch": torch.__version__, "limits": peaks, "measured": plain})
    print_line(f"{_name(device)}, torch {torch.__version__}")
    for title, tasks in measured.items():
        _print(title, tasks, peaks)


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _print(title: str, tasks: dict[str, Timed], peaks: dict[str, float | None]) -> None:
    """Times beside the first task's, rates beside the device's limits, and errors as a share of what is allowed."""
    base = next(iter(tasks.values())).times.median
    rows = []
    for name, task in tasks.items():
        rates = [
            f"{rate / unit:.2f}{f' ({rate / peak:.0%})' if peak else ''}" if rate else ""
            for rate, unit, peak in (
                (task.flops_per_second, 1e12, peaks["flops_per_second"]),
                (task.bytes_per_second, 1e9, peaks["bytes_per_second"]),
            )
        ]
        error = "" if task.error is None else f"{task.error:.2f}"
        rows.append(
            (name, task.times.lower, task.times.median, task.times.upper, task.times.median / base, *rates, error)
        )
    first = next(iter(tasks))
    columns = ("task", "lower ms", "median ms", "upper ms", f"/ {first}", "TFLOP/s", "GB/s", "error / bound")
    print_table(title, columns, rows, answer=True)
