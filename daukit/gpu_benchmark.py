"""Times of DAU layers and networks on a GPU beside convolutions of a named precision, with their results checked."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit import ops
from daukit.benchmark import REACH, Quartiles, quartiles
from daukit.errors import DaukitError
from daukit.models import create_model
from daukit.ops import dau_conv2d, record_choices
from daukit.ops.choices import Decision
from daukit.ops.cuda.driver import peaks
from daukit.ops.kernels import blur_radius
from daukit.ops.precision import tf32
from daukit.results import Positive

SHAPES = ((8, 96, 96, 32), (64, 96, 96, 32), (64, 256, 256, 14), (128, 512, 512, 7), (16, 64, 64, 56))
"""(batch, in_channels, out_channels, height = width): the layers for which docs/performance.md has predictions."""

PRECISIONS = {"fp32": torch.float32, "TF32": torch.float32, "bf16": torch.bfloat16}
"""Dtype of the images at each precision; fp32 is float32 without tensor cores."""

NOT_TIMED = (("DAU kernels", "TF32"), ("DAU dense", "bf16"), ("deform_conv2d 3x3", "bf16"))
"""The kernels know no TF32, the dense path computes in float32 when it is named, the peer knows no bfloat16."""

CALLS = 10
"""Calls that are timed together, so that the time of one launch does not count."""


@dataclass(frozen=True)
class Task:
    """One timed function: ``run`` at a precision, its work, and how far its result may lie from the truth.

    Attributes:
        flops: operations of one call by definition: 2 per filter tap and 8 per unit, for each pixel and pair.
        size: bytes of what is read and written once, at least.
        check: the error of a result over its bound, which must not exceed 1.
        repeats: whether every call must give the same bits.
    """

    run: Callable[[], Tensor]
    precision: str
    flops: float = 0.0
    size: float = 0.0
    check: Callable[[Tensor], float] | None = None
    repeats: bool = False


@dataclass(frozen=True)
class Timed:
    """Times of a task, its rates, and how wrong its result is.

    Attributes:
        times: times of a call.
        flops_per_second: counted operations over the median time.
        bytes_per_second: bytes that have to be moved over the median time.
        error: error of the result as a share of what is allowed; None where it was not compared.
        host: times in which the host queues a call; None where the device is the host.
        decisions: what was chosen for the passes of its DAU layers, in their order.
    """

    times: Quartiles
    flops_per_second: Positive
    bytes_per_second: Positive
    error: Positive | None
    host: Quartiles | None = None
    decisions: tuple[Decision, ...] = ()


def device_peaks(device: torch.device) -> dict[str, float | None]:
    """Peak float32 operations and bytes per second at the card's own clocks; None where the device does not tell."""
    flops, memory = peaks(device) if device.type == "cuda" else (None, None)
    return {"flops_per_second": flops, "bytes_per_second": memory}


def bench_layer(
    shape: tuple[int, int, int, int], device: torch.device, *, rounds: int = 9, units: int = 2, seed: int = 0
) -> dict[str, Timed]:
    """Time a DAU layer through the public operator beside convolutions, forward, and forward with backward.

    Args:
        shape: (batch, in_channels, out_channels, height = width).
        device: where to compute.
        rounds: interleaved rounds.
        units: units of a pair.
        seed: seed of inputs and parameters.

    Returns:
        What was measured by name, such as ``forward conv 3x3, TF32``.

    Raises:
        DaukitError: a result lies farther from the float64 one than rounding explains.
    """
    layers = _layers(shape, device, units, seed)
    tasks: dict[str, Task] = {}
    for name, (run, leaves, flops, check) in layers.items():
        for precision, dtype in PRECISIONS.items():
            if (name.split(" K=")[0], precision) in NOT_TIMED:
                continue
            inputs = [leaves[0].detach().to(dtype).requires_grad_(), *_parameters(name, leaves[1:], dtype)]
            size = sum(t.numel() * t.element_size() for t in inputs) + _output_bytes(shape, dtype)
            checked = check if precision == "fp32" else None
            alone, repeats = _without_grad(run, inputs), "kernels" in name
            tasks[f"forward {name}, {precision}"] = Task(
                alone, precision, flops=flops, size=size, check=checked, repeats=repeats
            )
            both = _with_backward(run, inputs)
            tasks[f"forward and backward {name}, {precision}"] = Task(both, precision, flops=3 * flops, size=3 * size)
    return measure(tasks, device, rounds)


def bench_network(
    name: str, shape: tuple[int, int, int, int], device: torch.device, *, rounds: int = 5
) -> dict[str, Timed]:
    """Time a training step of a network and of its twin with DAUs on noise; bf16 is autocast."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    tasks = {}
    for twin in (name, f"{name}_dau"):
        model = create_model(twin).to(device)
        for precision in PRECISIONS:
            tasks[f"training step {twin}, {precision}"] = Task(_step(model, images, precision), precision)
    return measure(tasks, device, rounds)


def measure(tasks: Mapping[str, Task], device: torch.device, rounds: int) -> dict[str, Timed]:
    """Time the tasks in turn, after a warm-up in which results are checked.

    Raises:
        DaukitError: a result is wrong, or is another one at the end than at the beginning.
    """
    first: dict[str, Tensor] = {}
    errors: dict[str, float | None] = {}
    decisions: dict[str, tuple[Decision, ...]] = {}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    of_host: dict[str, list[float]] = {name: [] for name in tasks}
    for name, task in tasks.items():
        with tf32(task.precision == "TF32", device), record_choices() as chosen:
            first[name] = task.run()
        decisions[name] = tuple(chosen)
        error = errors[name] = None if task.check is None else task.check(first[name])
        if error is not None and not error <= 1:
            raise DaukitError(f"{name}: the result's error is {error:.3g} times what rounding explains")
    for _ in range(rounds):
        for name, task in tasks.items():
            with tf32(task.precision == "TF32", device):
                milliseconds, on_host, last = _time(task.run, device)
            times[name].append(milliseconds)
            of_host[name] += [] if on_host is None else [on_host]
            if task.repeats and not torch.equal(last, first[name]):
                raise DaukitError(f"{name}: the same call gave two results")
    result = {}
    for name, task in tasks.items():
        of_device, host = quartiles(times[name]), quartiles(of_host[name]) if of_host[name] else None
        per_second = 1e3 / of_device.median
        rates = per_second * task.flops, per_second * task.size
        result[name] = Timed(of_device, *rates, errors[name], host, decisions[name])
    return result


def _time(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float | None, Tensor]:
    """Milliseconds of a call, the mean of ``CALLS``: by the device's own clock, and until the host has queued it.

    The result is the third. Where the device is the host there is one time.
    """
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)  # the host must not wait for room in the queue
        start.record()
        begin = time.perf_counter()
        for _ in range(CALLS):
            result = run()
        on_host = time.perf_counter() - begin
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / CALLS, 1e3 * on_host / CALLS, result
    begin = time.perf_counter()
    result = run()
    return 1e3 * (time.perf_counter() - begin), None, result


Layer = tuple[Callable[..., Tensor], list[Tensor], float, Callable[[Tensor], float] | None]


def _layers(shape: tuple[int, int, int, int], device: torch.device, units: int, seed: int) -> dict[str, Layer]:
    """Layers by name: how they run, their image and parameters, their operations, and their check."""
    batch, inputs, outputs, size = shape
    generator = torch.Generator().manual_seed(seed)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(device)

    x, weight = noise(batch, inputs, size, size), noise(outputs, inputs, units)
    mu = (REACH * (2 * torch.rand(2, outputs, inputs, units, generator=generator) - 1)).to(device)
    pixels = float(batch * inputs * outputs * size * size)
    layers: dict[str, Layer] = {}
    for side in (3, 9):
        kernel = noise(outputs, inputs, side, side)
        layers[f"conv {side}x{side}"] = (_convolution(side // 2), [x, kernel], 2 * side * side * pixels, None)
    check = _check(x, weight, mu)
    kernels = "cuda" if device.type == "cuda" else "auto"
    for name, backend in (("kernels", kernels), ("dense", "dense"), ("automatic", "auto")):
        layers[f"DAU {name} K={units}"] = (_dau(backend), [x, weight, mu], 8 * units * pixels, check)
    if (deform := _deform_conv2d()) is not None:
        offset = noise(batch, 18, size, size)
        layers["deform_conv2d 3x3"] = (deform, [x, offset, noise(outputs, inputs, 3, 3)], 18 * pixels, None)
    return layers


def _dau(backend: str) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        with ops.backend(backend):
            return dau_conv2d(*tensors, max_displacement=REACH)

    return run


def _convolution(padding: int) -> Callable[..., Tensor]:
    return lambda x, kernel: F.conv2d(x, kernel, padding=padding)


def _deform_conv2d() -> Callable[..., Tensor] | None:
    """Torchvision's deformable convolution, the nearest peer, where it is installed."""
    try:
        function = importlib.import_module("torchvision.ops").deform_conv2d
    except ImportError:
        return None
    return lambda x, offset, kernel: function(x, offset, kernel, padding=1)


def _check(x: Tensor, weight: Tensor, mu: Tensor) -> Callable[[Tensor], float]:
    """The error of the first image's result over the bound of docs/math.md, section 7."""
    image, doubled, at = x[:1].double(), weight.double(), mu.double()
    with ops.backend("dense"), torch.no_grad():
        truth = dau_conv2d(image, doubled, at)
        size = dau_conv2d(image.abs(), doubled.abs(), at)
    operations = 4 * (2 * blur_radius(0.5) + 1) + 16 + weight.shape[1] * weight.shape[2]
    bound = operations * torch.finfo(torch.float32).eps * size

    def check(output: Tensor) -> float:
        return float(((output[:1].double() - truth).abs() / bound).max())

    return check


def _parameters(name: str, leaves: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """A DAU's parameters stay float32, other layers' follow the image."""
    return [t.detach().to(torch.float32 if name.startswith("DAU") else dtype).requires_grad_() for t in leaves]


def _output_bytes(shape: tuple[int, int, int, int], dtype: torch.dtype) -> int:
    batch, _, outputs, size = shape
    return math.prod((batch, outputs, size, size)) * dtype.itemsize


def _without_grad(run: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], Tensor]:
    def task() -> Tensor:
        with torch.no_grad():
            return run(*inputs)

    return task


def _with_backward(run: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], Tensor]:
    def task() -> Tensor:
        output = run(*inputs)
        torch.autograd.grad(output, inputs, torch.ones_like(output))
        return output.detach()

    return task


def _step(model: nn.Module, images: Tensor, precision: str) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    labels = torch.arange(images.shape[0], device=images.device) % 10

    def run() -> Tensor:
        cast: AbstractContextManager[Any] = nullcontext()
        if precision == "bf16":
            cast = torch.autocast(images.device.type, torch.bfloat16)
        optimizer.zero_grad()
        with cast:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run
