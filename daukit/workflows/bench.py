"""Time layers and networks beside their peers, the backends beside each other, and whole commands, on the CPU."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from daukit import benchmark
from daukit.benchmark import Quartiles
from daukit.checkpoint import save
from daukit.models import create_model
from daukit.results import Positive, Progress, Size

Shape = tuple[Size, Size, Size, Size]
Times = dict[str, Quartiles]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine and the software on which times were measured.

    Attributes:
        torch: version of torch.
        threads: threads that torch uses.
        native: state of the native kernels, "available" or "unavailable: " and the reason.
        instruction_set: instruction set of the native kernels; None without them.
        peak_gflops: measured peak of fused multiply-adds, in GFLOP/s; None without native kernels.
    """

    torch: str
    threads: Size
    native: str
    instruction_set: str | None
    peak_gflops: Positive | None


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Times of layers of one shape.

    Attributes:
        shape: batch, input channels, output channels, and height = width.
        times: times by task.
        busy: why the machine may have been busy; None where the times do not say so.
    """

    shape: Shape
    times: Times
    busy: str | None


@dataclass(frozen=True, kw_only=True)
class PeerTimes:
    """Times of DAU layers and networks beside convolutions.

    Attributes:
        machine: where they were measured.
        displacement: limit of the layers' displacements in pixels, which are uniform within it.
        layers: one entry per shape.
        training: times of a training step by network.
        gamma: times of the network of the paper's section 4.4, with 9x9 filters and with DAUs.
        inference: times of inference by pair of networks, and by network.
    """

    machine: Machine
    displacement: Positive
    layers: tuple[LayerTimes, ...]
    training: Times | None = None
    gamma: Times | None = None
    inference: dict[str, Times] | None = None


@dataclass(frozen=True, kw_only=True)
class BackendTimes:
    """Times of the dense path beside the native kernels.

    Attributes:
        machine: where they were measured.
        backends: times by case, and by task.
    """

    machine: Machine
    backends: dict[str, Times]


@dataclass(frozen=True, kw_only=True)
class CommandTimes:
    """Times of whole processes.

    Attributes:
        machine: where they were measured.
        commands: times by command.
    """

    machine: Machine
    commands: Times


def time_peers(
    shapes: Sequence[tuple[int, int, int, int]] = (),
    *,
    displacement: float = benchmark.REACH,
    networks: bool = True,
    dcls: bool = False,
    rounds: int = 9,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> PeerTimes:
    """Time DAU layers and networks beside 3x3 and 9x9 convolutions, interleaved in one run.

    Args:
        shapes: (batch, in_channels, out_channels, height = width) of each layer; ``benchmark.SHAPES`` if there is none.
        displacement: limit of the layers' displacements in pixels, which are uniform within it.
        networks: whether to time networks, too, and the paper's gamma.
        dcls: whether to time dcls, too, which takes minutes.
        rounds: interleaved rounds.
        seed: seed of inputs and parameters.
        on_progress: called with the share done.

    Raises:
        DaukitError: dcls is asked for and not installed.
    """
    shapes = shapes or benchmark.SHAPES
    machine = _machine()
    layers: list[LayerTimes] = []
    for i, shape in enumerate(shapes):
        times = benchmark.bench_layer(shape, displacement=displacement, rounds=rounds, peers=dcls, seed=seed)
        layers.append(LayerTimes(shape=shape, times=times, busy=benchmark.busy(times, shape, machine.peak_gflops)))
        if on_progress is not None:
            on_progress((i + 1) / (len(shapes) + 2 * networks), "x".join(map(str, shape)))
    if not networks:
        return PeerTimes(machine=machine, displacement=displacement, layers=tuple(layers))
    return PeerTimes(
        machine=machine,
        displacement=displacement,
        layers=tuple(layers),
        training=benchmark.bench_training(rounds=rounds, seed=seed),
        gamma=benchmark.bench_gamma(rounds=rounds),
        inference={name: benchmark.bench_inference(name, rounds=rounds) for name in benchmark.INFERENCE},
    )


def time_backends(*, rounds: int = 9, seed: int = 0, on_progress: Progress | None = None) -> BackendTimes:
    """Time the layers of ``benchmark.BACKEND_CASES`` on the dense path and on the native kernels.

    Args:
        rounds: interleaved rounds.
        seed: seed of inputs and parameters.
        on_progress: called with the share done.
    """
    times: dict[str, Times] = {}
    for name in benchmark.BACKEND_CASES:
        times[name] = benchmark.bench_backends(name, rounds=rounds, seed=seed)
        if on_progress is not None:
            on_progress(len(times) / len(benchmark.BACKEND_CASES), name)
    return BackendTimes(machine=_machine(), backends=times)


def time_commands(*, rounds: int = 9, seed: int = 0) -> CommandTimes:
    """Time whole processes: what a user waits for, Python's start and torch's import included.

    Args:
        rounds: interleaved rounds.
        seed: seed of the network that the commands work on.
    """
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        save(create_model("shallow_dau"), model)
        times = benchmark.interleave(_processes(model), rounds)
    return CommandTimes(machine=_machine(), commands=times)


def _machine() -> Machine:
    return Machine(**benchmark.machine())


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
