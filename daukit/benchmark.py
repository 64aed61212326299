"""Times of layers and networks beside their peers, interleaved in one run: only ratios of one run mean anything."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit import ops
from daukit.errors import DaukitError, in_words_of_caller
from daukit.models import create_model
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d
from daukit.ops import dau_conv2d, library
from daukit.results import Positive

SHAPES = (
    (8, 96, 96, 32),
    (8, 64, 64, 56),
    (8, 128, 128, 28),
    (8, 256, 256, 14),
    (8, 512, 512, 7),
    (8, 256, 384, 13),
    (1, 128, 128, 64),
    (1, 32, 32, 256),
)
"""(batch, in_channels, out_channels, height = width) of layers as classification, AlexNet and deblurring have them."""

REACH = DEFAULT_MAX_DISPLACEMENT
"""Displacements are uniform within this many pixels: the worst case of a 9x9 receptive field."""


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
    quantiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        name: Quartiles(*torch.tensor(t, dtype=torch.float64).quantile(quantiles).tolist()) for name, t in times.items()
    }


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


def bench_layer(
    shape: tuple[int, int, int, int], *, rounds: int = 9, peers: bool = False, seed: int = 0
) -> dict[str, Quartiles]:
    """Time a DAU layer of one shape through the public operator, blur and allocation included, and its peers.

    Args:
        shape: (batch, in_channels, out_channels, height = width).
        rounds: interleaved rounds.
        peers: also time dcls, which must be installed; it takes seconds a call at many channels.
        seed: seed of inputs and parameters.

    Returns:
        Quartiles by name: ``forward ...`` and ``backward ...`` of ``conv 3x3``, ``conv 9x9`` and DAU layers.

    Raises:
        DaukitError: dcls is asked for and not installed.
    """
    batch, inputs, outputs, size = shape
    generator = torch.Generator().manual_seed(seed)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).requires_grad_()

    def units(count: int) -> tuple[Tensor, Tensor]:
        mu = REACH * (2 * torch.rand(2, outputs, inputs, count, generator=generator) - 1)
        return noise(outputs, inputs, count), mu.requires_grad_()

    x, error = noise(batch, inputs, size, size), noise(batch, outputs, size, size).detach()
    kernel3, kernel9 = noise(outputs, inputs, 3, 3), noise(outputs, inputs, 9, 9)
    two, four = units(2), units(4)
    pruned = _half(*two, generator)
    forwards: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "conv 3x3": (lambda: F.conv2d(x, kernel3, padding=1), [x, kernel3]),
        "conv 9x9": (lambda: F.conv2d(x, kernel9, padding=4), [x, kernel9]),
        "DAU K=2": (lambda: dau_conv2d(x, *two), [x, *two]),
        "DAU K=4": (lambda: dau_conv2d(x, *four), [x, *four]),
        "DAU K=2 exact": (lambda: dau_conv2d(x, *two, mu_gradient="exact"), [x, *two]),
    }
    if peers:
        layer = _dcls(inputs, outputs)
        forwards["dcls K=2"] = (lambda: layer(x), [x, *layer.parameters()])
    tasks = {f"forward {name}": _without_grad(run) for name, (run, _) in forwards.items() if "exact" not in name}
    tasks["forward DAU K=2 half pruned"] = _without_grad(lambda: dau_conv2d(x, *pruned[:2], unit_ptr=pruned[2]))
    for name, (run, leaves) in forwards.items():
        if name not in ("conv 9x9", "DAU K=4"):
            tasks[f"backward {name}"] = _backward(run(), leaves, error)
    return interleave(tasks, rounds)


def bench_training(*, batch: int = 128, rounds: int = 5, seed: int = 0) -> dict[str, Quartiles]:
    """Time a training step of the shallow network (section 4.1, K = 2) and of its 3x3 twin on noise."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(batch, 1, 28, 28, generator=generator), torch.arange(batch) % 10

    def step(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return run

    return interleave(
        {
            "training step 3x3": step(create_model("shallow")),
            "training step DAU K=2": step(create_model("shallow_dau", units=2)),
        },
        rounds,
    )


INFERENCE = {"resnet50": (8, 3, 224, 224), "alexnet": (8, 3, 227, 227)}
"""Networks whose inference is timed, with the shape of their input."""


def bench_inference(name: str, *, rounds: int = 5) -> dict[str, Quartiles]:
    """Time a network of ``INFERENCE`` on noise, with convolutions and with DAUs."""
    images = torch.randn(INFERENCE[name], generator=torch.Generator().manual_seed(0))

    def classify(model: nn.Module) -> Callable[[], object]:
        return _without_grad(lambda: model(images))

    twins = {twin: classify(create_model(twin).eval()) for twin in (name, f"{name}_dau")}
    return interleave(twins, rounds)


def bench_gamma(*, batch: int = 8, rounds: int = 5) -> dict[str, Quartiles]:
    """Time the network of section 4.4, three layers of 192 channels at 32x32, with 9x9 filters and with two units.

    The paper's Eq. 17 promises a speed-up of ``gamma = 9 * 9 / (4 * 2)``, counted in products.
    """
    x = torch.randn(batch, 192, 32, 32, generator=torch.Generator().manual_seed(0))
    dense = nn.Sequential(*(nn.Conv2d(192, 192, 9, padding=4) for _ in range(3)))
    displaced = nn.Sequential(*(DAUConv2d(192, 192, 2, max_displacement=REACH) for _ in range(3)))
    tasks = {"forward 9x9": lambda: dense(x), "forward DAU K=2": lambda: displaced(x)}
    return interleave({name: _without_grad(task) for name, task in tasks.items()}, rounds)


BACKEND_CASES: dict[str, tuple[tuple[int, int, int, int], int, dict[str, int]]] = {
    "K=16": ((8, 64, 64, 28), 16, {}),
    "K=24": ((8, 64, 64, 28), 24, {}),
    "K=32": ((8, 64, 64, 28), 32, {}),
    "K=48": ((8, 64, 64, 28), 48, {}),
    "stride 2": ((8, 96, 96, 32), 2, {"stride": 2}),
    "stride 4": ((8, 96, 96, 32), 2, {"stride": 4}),
    "dilation 2": ((8, 96, 96, 32), 2, {"dilation": 2}),
    "8 groups": ((8, 96, 96, 32), 2, {"groups": 8}),
    "depthwise, 32x32": ((8, 96, 96, 32), 2, {"groups": 96}),
    "depthwise, 7x7": ((8, 512, 512, 7), 2, {"groups": 512}),
    "first layer": ((128, 1, 96, 28), 2, {}),
    "tiny": ((1, 2, 4, 16), 2, {}),
}
"""Layers where the dense path could win: name to (shape, units, options)."""


def bench_backends(name: str, *, rounds: int = 5, seed: int = 0) -> dict[str, Quartiles]:
    """Time one of ``BACKEND_CASES`` on the dense and on the native backend, forward and backward."""
    (batch, inputs, outputs, size), units, options = BACKEND_CASES[name]
    generator = torch.Generator().manual_seed(seed)
    shape = (outputs, inputs // options.get("groups", 1), units)
    x, weight = (torch.randn(*s, generator=generator) for s in ((batch, inputs, size, size), shape))
    mu = REACH * (2 * torch.rand(2, *shape, generator=generator) - 1)
    leaves = [t.requires_grad_() for t in (x, weight, mu)]
    tasks: dict[str, Callable[[], object]] = {}
    for backend in ("dense", "native"):

        def run(backend: str = backend) -> Tensor:
            with ops.backend(backend):
                return dau_conv2d(x, weight, mu, **options)  # type: ignore[arg-type]

        output = run()
        tasks[f"forward {backend}"] = _without_grad(run)
        tasks[f"backward {backend}"] = _backward(output, leaves, torch.ones_like(output))
    return interleave(tasks, rounds)


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


def _half(weight: Tensor, mu: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged units: a random half of dense ones."""
    keep = torch.rand(weight.shape, generator=generator) < 0.5
    counts = keep.flatten(0, 1).sum(1)
    unit_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    return weight.detach()[keep], mu.detach()[:, keep], unit_ptr


def _without_grad(run: Callable[[], Tensor]) -> Callable[[], object]:
    def task() -> Tensor:
        with torch.no_grad():
            return run()

    return task


def _backward(output: Tensor, leaves: list[Tensor], error: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(output, leaves, error, retain_graph=True)


def _dcls(inputs: int, outputs: int) -> nn.Module:
    logging.disable(logging.WARNING)  # it warns on the root logger that kernels of other machines are missing
    try:
        from DCLS.construct.modules import Dcls2d

        layer: nn.Module = Dcls2d(inputs, outputs, kernel_count=2, dilated_kernel_size=9, padding=4, bias=False)
    except ImportError:
        how = in_words_of_caller("peers=True", "--peers")
        raise DaukitError(f"dcls is not installed; pip install dcls==0.1.1, or leave {how} out") from None
    finally:
        logging.disable(logging.NOTSET)
    return layer
