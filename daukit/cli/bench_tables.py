"""The tables of ``daukit bench``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from daukit.cli.printing import note, print_json, print_line, print_table
from daukit.results import as_json

if TYPE_CHECKING:
    from daukit.benchmark import Quartiles
    from daukit.gpu_benchmark import Timed
    from daukit.ops.choices import Decision
    from daukit.workflows.bench import BackendTimes, CommandTimes, PeerTimes
    from daukit.workflows.bench_data import DataTimes
    from daukit.workflows.bench_gpu import DeviceLimits, GpuTimes
    from daukit.workflows.bench_sparse import SparseBench


def print_peers(result: PeerTimes) -> None:
    """Print times of layers and networks beside their peers."""
    from daukit.benchmark import INFERENCE

    print_json("bench", result)
    print_line(", ".join(f"{key} {value}" for key, value in as_json(result.machine).items()))
    for layer in result.layers:
        title = f"layer {layer.shape}, displacements within {result.displacement:g} pixels"
        _print_times(title, layer.times, "conv 3x3")
        if layer.busy:
            note(f"warning: {layer.busy}; the machine may be busy, repeat before you believe a ratio")
    if result.training is None or result.gamma is None:
        return
    _print_times("shallow network, training step at batch 128", result.training, "3x3")
    _print_times("section 4.4: three layers of 192 channels, 32x32", result.gamma, "9x9")
    for name, times in (result.inference or {}).items():
        _print_times(f"inference on {INFERENCE[name]}", times, "convolutions")
    dense, displaced = result.gamma.values()
    print_line(f"gamma (Eq. 17) {9 * 9 / (4 * 2):.1f}, measured {dense.median / displaced.median:.1f}")


def print_backends(result: BackendTimes) -> None:
    """Print the ratio of the two backends' times, layer by layer."""
    from daukit.benchmark import BACKEND_CASES

    print_json("bench", result)
    rows = []
    for name, t in result.backends.items():
        ratios = [t[f"{way} dense"].median / t[f"{way} native"].median for way in ("forward", "backward")]
        rows.append((f"{name} {BACKEND_CASES[name][0]}", *ratios))
    title = "time of the dense path / time of the native kernels"
    print_table(title, ("layer", "forward", "backward"), rows, answer=True)


def print_data(result: DataTimes) -> None:
    """Print how many images a second each part of a training takes."""
    print_json("bench", result)
    print_line(", ".join(f"{key} {value}" for key, value in as_json(result.machine).items()))
    rows = [(name, result.images_per_second[name], time.median) for name, time in result.times.items()]
    title = f"{result.model} on {result.data}, {result.batch_size} images a step"
    print_table(title, ("task", "images/s", "ms a step"), rows, answer=True)
    print_line(f"a step of daukit train takes {result.loop_ratio:.3f} of one in a bare loop")


def print_sparse(result: SparseBench) -> None:
    """Print sparse over dense times, density by density, and the densities where they cross."""
    print_json("bench", result)
    print_line(", ".join(f"{key} {value}" for key, value in as_json(result.machine).items()))
    for case in result.sparse:
        ratios = [(form, engine) for engine in case.engines for form in case.crossovers]
        rows = [
            (
                f"{100 * one.density:g} %",
                *(one.times[name].median for name in case.engines),
                *(one.ratios[form][engine] for form, engine in ratios),
            )
            for one in case.densities
        ]
        columns = (
            "density",
            *(f"{name}, ms" for name in case.engines),
            *(f"{form} / {engine}" for form, engine in ratios),
        )
        print_table(f"{case.name} {case.shape}", columns, rows, answer=True)
    _print_crossovers(result)
    for sentence in result.left_out:
        note(sentence)


def _print_crossovers(result: SparseBench) -> None:
    """The density below which a sparse form is faster than each dense engine."""
    engines = list(dict.fromkeys(engine for case in result.sparse for engine in case.engines))
    rows = [
        (f"{case.name} {case.shape}, {form}", *(_in_percent(case.crossovers[form].get(engine)) for engine in engines))
        for case in result.sparse
        for form in case.crossovers
    ]
    title = "density below which it is faster, in % (100: at every density measured; -: at none)"
    print_table(title, ("layer or network", *(f"than {engine}" for engine in engines)), rows, answer=True)


def _in_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def print_commands(result: CommandTimes) -> None:
    """Print times of whole commands."""
    print_json("bench", result)
    _print_times("commands on the shallow network, K=4", result.commands, "import torch")


def print_gpu(result: GpuTimes) -> None:
    """Print times on a GPU, with rates beside its limits."""
    print_json("bench", result)
    print_line(f"{result.device}, torch {result.torch}")
    if result.tuned:
        print_line("each way was timed first; later processes on this card take the fastest, too")
    for title, tasks in result.measured.items():
        _print_rates(title, tasks, result.limits)
        for name, task in tasks.items():
            _print_decisions(name, task.decisions)


def _print_decisions(task: str, decisions: Sequence[Decision]) -> None:
    """Which ways a task's layers took: of a single layer with the figures, of a network how many of each."""
    for step in ("forward", "backward"):
        chosen = [one for one in decisions if one.step == step]
        counts = Counter((one.way, one.by) for one in chosen)
        for (way, by), times in counts.items():
            why = f"{times} of {len(chosen)} layers" if len(chosen) > 1 else _figures(chosen[0])
            print_line(f"{task}: {step} by {way}, {'as the rule counts' if by == 'rule' else 'as measured'} ({why})")


def _figures(decision: Decision) -> str:
    unit = "" if decision.by == "rule" else " ms"
    known = sorted((one, name) for name, one in decision.figures.items() if one is not None)
    missing = [name for name, one in decision.figures.items() if one is None]
    return ", ".join([*(f"{name} {one:.3g}{unit}" for one, name in known), *(f"{name} no memory" for name in missing)])


def _print_rates(title: str, tasks: dict[str, Timed], limits: DeviceLimits) -> None:
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
        host = "" if task.host is None else f"{task.host.median:.3f}"
        rows.append(
            (name, task.times.lower, task.times.median, task.times.upper, task.times.median / base, host, *rates, error)
        )
    first = next(iter(tasks))
    columns = ("task", "lower ms", "median ms", "upper ms", f"/ {first}", "host ms", "TFLOP/s", "GB/s", "error / bound")
    print_table(title, columns, rows, answer=True)


def _print_times(title: str, times: dict[str, Quartiles], yardstick: str) -> None:
    first = next(iter(times.values()))
    rows = []
    for name, time in times.items():
        # A layer's forward and backward each have a yardstick of their own; a network's comes first.
        base = times.get(f"{name.split()[0]} {yardstick}", first)
        rows.append((name, time.lower, time.median, time.upper, time.median / base.median))
    print_table(title, ("task", "lower ms", "median ms", "upper ms", f"/ {yardstick}"), rows, answer=True)
