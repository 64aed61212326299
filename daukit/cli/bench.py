"""``daukit bench``: times of layers and networks beside their peers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daukit.cli import options
from daukit.cli.bench_gpu import bench_on_gpu
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, print_line, print_table, speak

if TYPE_CHECKING:
    from daukit.benchmark import Quartiles


def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="N,C,O,H", help="Batch, channels in and out, height = width; repeatable."),
    ] = None,
    networks: Annotated[bool, typer.Option(help="Also time networks and the paper's gamma.")] = True,
    peers: Annotated[bool, typer.Option("--peers", help="Also time dcls; takes minutes.")] = False,
    backends: Annotated[bool, typer.Option("--backends", help="Instead: the dense path beside the kernels.")] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Instead: whole commands on a network of 110,976 units.")
    ] = False,
    device: options.Device = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads. Default: torch's choice.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 9,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time DAU layers and networks beside 3x3 and 9x9 convolutions, interleaved in one run.

    On a GPU (--device cuda) each precision is named, results are checked, and rates stand beside the device's limits.
    """
    speak(json=json, quiet=quiet)
    shapes = [_parse_shape(text) for text in shape or ()]
    _check_usage(device, backends=backends, commands=commands)
    if device != "cpu":
        options.check_device(device)
        bench_on_gpu(device, shapes, networks=networks, rounds=rounds, seed=seed)
        return
    import torch

    from daukit import benchmark

    if threads:
        torch.set_num_threads(threads)
    if backends:
        _bench_backends(rounds, seed)
        return
    if commands:
        _bench_commands(rounds, seed)
        return
    shapes = shapes or list(benchmark.SHAPES)
    here = benchmark.machine()
    layers: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    with progress_bar(1) as update:
        for i, one in enumerate(shapes):
            times = benchmark.bench_layer(one, rounds=rounds, peers=peers, seed=seed)
            layers.append({"shape": one, "times": times, "busy": benchmark.busy(times, one, here["peak_gflops"])})
            update((i + 1) / (len(shapes) + 2 * networks), "x".join(map(str, one)))
        if networks:
            extra = {"training": benchmark.bench_training(rounds=rounds, seed=seed)}
            extra["gamma"] = benchmark.bench_gamma(rounds=rounds)
            extra["inference"] = {name: benchmark.bench_inference(name, rounds=rounds) for name in benchmark.INFERENCE}
    print_json("bench", {"machine": here, "layers": [_plain(layer) for layer in layers], **_plain(extra)})
    print_line(", ".join(f"{key} {value}" for key, value in here.items()))
    for layer in layers:
        _print_times(f"layer {layer['shape']}", layer["times"], "conv 3x3")
        if layer["busy"]:
            note(f"warning: {layer['busy']}; the machine may be busy, repeat before you believe a ratio")
    if extra:
        _print_times("shallow network, training step at batch 128", extra["training"], "3x3")
        _print_times("section 4.4: three layers of 192 channels, 32x32", extra["gamma"], "9x9")
        for name, times in extra["inference"].items():
            _print_times(f"inference on {benchmark.INFERENCE[name]}", times, "convolutions")
        dense, displaced = extra["gamma"].values()
        print_line(f"gamma (Eq. 17) {9 * 9 / (4 * 2):.1f}, measured {dense.median / displaced.median:.1f}")


def _check_usage(device: str, *, backends: bool, commands: bool) -> None:
    """Refuse the options that what is timed has no use for."""
    if backends and commands:
        raise typer.BadParameter("time one thing at a time", param_hint="--backends and --commands")
    if device != "cpu":
        why = "this is about the CPU, where --device cpu times it; drop it"
        options.refuse_unused(why, "--peers", "--backends", "--commands", "--threads")
    if backends:
        options.refuse_unused("--backends has layers of its own; drop it", "--shape", "--networks", "--peers")
    if commands:
        why = "--commands times whole processes on one network; drop it"
        options.refuse_unused(why, "--shape", "--networks", "--peers", "--threads")


def _bench_backends(rounds: int, seed: int) -> None:
    from daukit import benchmark

    times = {}
    with progress_bar(1) as update:
        for i, name in enumerate(benchmark.BACKEND_CASES):
            times[name] = benchmark.bench_backends(name, rounds=rounds, seed=seed)
            update((i + 1) / len(benchmark.BACKEND_CASES), name)
    print_json("bench", {"machine": benchmark.machine(), "backends": _plain(times)})
    rows = []
    for name, t in times.items():
        ratios = [t[f"{way} dense"].median / t[f"{way} native"].median for way in ("forward", "backward")]
        rows.append((f"{name} {benchmark.BACKEND_CASES[name][0]}", *ratios))
    print_table(
        "time of the dense path / time of the native kernels", ("layer", "forward", "backward"), rows, answer=True
    )


def _bench_commands(rounds: int, seed: int) -> None:
    """Time whole processes: what a user waits for, Python's start and torch's import included."""
    import torch

    from daukit import benchmark
    from daukit.checkpoint import save
    from daukit.models import create_model

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        save(create_model("shallow_dau"), model)
        times = benchmark.interleave(_processes(model), rounds)
    print_json("bench", {"machine": benchmark.machine(), "commands": _plain(times)})
    _print_times("commands on the shallow network, K=4", times, "import torch")


def _processes(model: Path) -> dict[str, Callable[[], object]]:
    """A process each, its output beside ``model``; the first is the yardstick."""

    def process(code: str, *arguments: str) -> Callable[[], object]:
        run = [sys.executable, "-c", code, *arguments]
        return lambda: subprocess.run(run, check=True, capture_output=True, cwd=model.parent)

    def daukit(*arguments: str) -> Callable[[], object]:
        return process("from daukit.cli.main import main; main()", *arguments)

    name = model.name
    return {
        "import torch": process("import torch"),
        "daukit --help": daukit("--help"),
        "daukit info": daukit("info", name),
        "daukit prune": daukit("prune", name, "--threshold", "0.05", "-o", "pruned.safetensors", "--overwrite"),
        "daukit plot-offsets": daukit("plot-offsets", name, "-o", "offsets.png", "--overwrite"),
        "daukit erf": daukit("erf", name, "-o", "erf.png", "--overwrite"),
        "daukit rescale": daukit(
            "rescale", name, "--remove-pool", "pool3", "--size", "28", "-o", "dense.safetensors", "--overwrite"
        ),
    }


def _parse_shape(text: str) -> tuple[int, int, int, int]:
    from daukit.limits import MAX_CHANNELS

    parts = text.split(",")
    if len(parts) != 4 or not all(options.is_count(part, MAX_CHANNELS) for part in parts):
        raise typer.BadParameter(f"{text!r} is not a shape like 8,96,96,32", param_hint="--shape")
    batch, inputs, outputs, size = map(int, parts)
    return batch, inputs, outputs, size


def _print_times(title: str, times: dict[str, Quartiles], yardstick: str) -> None:
    first = next(iter(times.values()))
    rows = []
    for name, time in times.items():
        # A layer's forward and backward each have a yardstick of their own; a network's comes first.
        base = times.get(f"{name.split()[0]} {yardstick}", first)
        rows.append((name, time.lower, time.median, time.upper, time.median / base.median))
    print_table(title, ("task", "lower ms", "median ms", "upper ms", f"/ {yardstick}"), rows, answer=True)


def _plain(data: Any) -> Any:
    """Dataclasses inside dicts as dicts."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    return asdict(data) if hasattr(data, "__dataclass_fields__") else data
