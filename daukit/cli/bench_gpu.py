"""What ``daukit bench --device cuda`` prints: times, and rates beside the device's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daukit.cli.report import print_json, print_line, print_table

if TYPE_CHECKING:
    from daukit.gpu_benchmark import Timed
    from daukit.workflows.bench_gpu import DeviceLimits, GpuTimes


def print_gpu_times(result: GpuTimes) -> None:
    """Print what was measured on a GPU."""
    print_json("bench", result)
    print_line(f"{result.device}, torch {result.torch}")
    for title, tasks in result.measured.items():
        _print(title, tasks, result.limits)


def _print(title: str, tasks: dict[str, Timed], limits: DeviceLimits) -> None:
    """Times beside the first task's, rates beside the device's limits, and errors as a share of what is allowed."""
    base = next(iter(tasks.values())).times.median
    rows = []
    for name, task in tasks.items():
        rates = [
            f"{rate / unit:.2f}{f' ({rate / peak:.0%})' if peak else ''}" if rate else ""
            for rate, unit, peak in (
                (task.flops_per_second, 1e12, limits.flops_per_second),
                (task.bytes_per_second, 1e9, limits.bytes_per_second),
            )
        ]
        error = "" if task.error is None else f"{task.error:.2f}"
        rows.append(
            (name, task.times.lower, task.times.median, task.times.upper, task.times.median / base, *rates, error)
        )
    first = next(iter(tasks))
    columns = ("task", "lower ms", "median ms", "upper ms", f"/ {first}", "TFLOP/s", "GB/s", "error / bound")
    print_table(title, columns, rows, answer=True)
