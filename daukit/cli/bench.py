"""``daukit bench``: times of layers and networks beside their peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daukit.cli import options
from daukit.cli.bench_gpu import print_gpu_times
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, print_line, print_table, speak
from daukit.results import as_json

if TYPE_CHECKING:
    from daukit.benchmark import Quartiles
    from daukit.workflows.bench import BackendTimes, CommandTimes, PeerTimes

EXAMPLES = (
    "daukit bench --shape 1,16,16,32 --no-networks",
    "daukit bench --shape 1,16,16,32 --shape 1,32,32,16 --no-networks --threads 1 --json",
)


def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="N,C,O,H",
            help="Batch, channels in and out, and height = width of a layer. Repeatable. If omitted, times several "
            "typical layers.",
        ),
    ] = None,
    networks: Annotated[bool, typer.Option(help="Also time networks and measure the paper's gamma (Eq. 17).")] = True,
    peers: Annotated[bool, typer.Option("--peers", help="Also time the package dcls, which takes minutes.")] = False,
    backends: Annotated[
        bool, typer.Option("--backends", help="Time only the two CPU backends, dense and native.")
    ] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Time only whole commands, on the shallow network (110,976 units).")
    ] = False,
    device: options.Device = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Number of threads. If omitted, torch chooses.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Number of rounds; each runs every task once.")] = 9,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time DAU layers and networks beside 3x3 and 9x9 convolutions, interleaved in one run.

    With --device cuda, time them at several precisions, check the results, and print rates beside the GPU's limits.
    """
    speak(json=json, quiet=quiet)
    shapes = [_parse_shape(text) for text in shape or ()]
    _check_usage(device, backends=backends, commands=commands)
    if device != "cpu":
        options.check_device(device)
        from daukit.workflows.bench_gpu import time_on_gpu

        with progress_bar(1) as update:
            on_gpu = time_on_gpu(device, shapes, networks=networks, rounds=rounds, seed=seed, on_progress=update)
        print_gpu_times(on_gpu)
        return
    import torch

    from daukit.workflows.bench import time_backends, time_commands, time_peers

    if threads:
        torch.set_num_threads(threads)
    if commands:
        _print_commands(time_commands(rounds=rounds, seed=seed))
    elif backends:
        with progress_bar(1) as update:
            of_backends = time_backends(rounds=rounds, seed=seed, on_progress=update)
        _print_backends(of_backends)
    else:
        with progress_bar(1) as update:
            of_peers = time_peers(shapes, networks=networks, dcls=peers, rounds=rounds, seed=seed, on_progress=update)
        _print_peers(of_peers)


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


def _parse_shape(text: str) -> tuple[int, int, int, int]:
    from daukit.limits import MAX_CHANNELS

    parts = text.split(",")
    if len(parts) != 4 or not all(options.is_count(part, MAX_CHANNELS) for part in parts):
        raise typer.BadParameter(f"{text!r} is not a shape like 8,96,96,32", param_hint="--shape")
    batch, inputs, outputs, size = map(int, parts)
    return batch, inputs, outputs, size


def _print_peers(result: PeerTimes) -> None:
    from daukit.benchmark import INFERENCE

    print_json("bench", result)
    print_line(", ".join(f"{key} {value}" for key, value in as_json(result.machine).items()))
    for layer in result.layers:
        _print_times(f"layer {layer.shape}", layer.times, "conv 3x3")
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


def _print_backends(result: BackendTimes) -> None:
    from daukit.benchmark import BACKEND_CASES

    print_json("bench", result)
    rows = []
    for name, t in result.backends.items():
        ratios = [t[f"{way} dense"].median / t[f"{way} native"].median for way in ("forward", "backward")]
        rows.append((f"{name} {BACKEND_CASES[name][0]}", *ratios))
    title = "time of the dense path / time of the native kernels"
    print_table(title, ("layer", "forward", "backward"), rows, answer=True)


def _print_commands(result: CommandTimes) -> None:
    print_json("bench", result)
    _print_times("commands on the shallow network, K=4", result.commands, "import torch")


def _print_times(title: str, times: dict[str, Quartiles], yardstick: str) -> None:
    first = next(iter(times.values()))
    rows = []
    for name, time in times.items():
        # A layer's forward and backward each have a yardstick of their own; a network's comes first.
        base = times.get(f"{name.split()[0]} {yardstick}", first)
        rows.append((name, time.lower, time.median, time.upper, time.median / base.median))
    print_table(title, ("task", "lower ms", "median ms", "upper ms", f"/ {yardstick}"), rows, answer=True)
