"""What the units of a network cost, in multiply-adds or in time, for budgets of one or the other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from daukit import benchmark
from daukit.checkpoint import Checkpoint, build_model
from daukit.errors import naming
from daukit.models.costs import multiply_adds
from daukit.models.running import dtype_of, evaluating
from daukit.models.structure import dau_layers
from daukit.models.usercode import calling
from daukit.nn import DAUConv2d
from daukit.pruning import Costs
from daukit.results import Count, Positive, Size
from daukit.workflows.shapes import image_shape
from daukit.workflows.timing import BATCH, wait

ROUNDS = 25
"""More than for a network: what one layer takes, and half of it, is little, and their difference less."""


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """Time of one DAU layer's forward, measured with all of its units and with a random half of them.

    Attributes:
        name: name of the layer.
        units: units of the layer.
        fixed: time that does not depend on the number of units, in milliseconds.
        per_unit: time that every unit adds, in milliseconds; 0 where more units took no longer.
    """

    name: str
    units: Count
    fixed: Positive
    per_unit: Positive


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """Times by which units were chosen, measured in turn, medians in milliseconds.

    Attributes:
        input: sizes (batch, channels, height, width) of the input.
        rounds: number of measurements.
        network: time of the network in the file.
        now: time of the network whose units are chosen; another one where units were merged, or in later rounds.
        predicted: time without the units that go: less the time that each of them adds.
        layers: the DAU layers, in the network's order.
    """

    input: tuple[Size, Size, Size, Size]
    rounds: Size
    network: Positive
    now: Positive
    predicted: Positive
    layers: tuple[LayerTime, ...]


def multiply_add_costs(
    before: Checkpoint,
    now: Checkpoint,
    share: float,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
) -> Costs:
    """What units cost in multiply-adds for one image, by ``daukit.models.costs``.

    Args:
        before: the network of whose multiply-adds ``share`` may stay.
        now: the network whose units are chosen: ``before``, or what has been made of it.
        share: within [0, 1].
        size: (height, width) of the image, where ``before`` does not tell them.
        model: as in ``daukit.load``.

    Raises:
        CheckpointError: a network cannot be built or run, or nothing tells the size of its input.
    """
    first, second = (build_model(checkpoint, model=model) for checkpoint in (before, now))
    shape = (1, *image_shape(before, first, size))
    layers = dau_layers(second)
    with naming(before.called):
        whole = sum(multiply_adds(first, shape).values())
        full = multiply_adds(second, shape)
        empty = multiply_adds(second, shape, dict.fromkeys(layers, 0))
    units = {name: max(1, layer.weight.numel()) for name, layer in layers.items()}
    return Costs(
        total=sum(full.values()),
        # The share as the decimal that was written: 0.07 of 100 are 7, not 7.000000000000001.
        limit=math.floor(Fraction(str(share)) * whole),
        whole=whole,
        per_unit={name: (full[name] - empty[name]) // units[name] for name in layers},
        unit="multiply-adds",
    )


def time_costs(
    before: Checkpoint,
    now: Checkpoint,
    share: float,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    device: str = "cpu",
) -> tuple[Costs, TimePlan]:
    """What units cost in time on this machine, and the measurements behind it; arguments as in ``multiply_add_costs``.

    Every DAU layer is timed on the input that it gets in the network, with all and with half of its units; a straight
    line through both gives the time of a unit. The plan predicts nothing yet.

    Raises:
        CheckpointError: a network cannot be built or run, or nothing tells the size of its input.
    """
    first = build_model(before, model=model).to(device)
    # Two measurements of one network would differ, and even a budget of 1 would remove units.
    second = first if now is before else build_model(now, model=model).to(device)
    channels, height, width = image_shape(before, first, size)
    shape = (BATCH, channels, height, width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    tasks: dict[str, Callable[[], object]] = {
        f"network {name}": _quiet(partial(_forward, network, images))
        for name, network in (("before", first), *([] if second is first else [("now", second)]))
    }
    layers = dau_layers(second)
    with naming(before.called):
        for name, inputs in _inputs_of_layers(second, images).items():
            versions = {"all": layers[name], "half": _half_of(layers[name])}
            tasks |= {f"{key} {name}": _quiet(partial(_run, layer, inputs)) for key, layer in versions.items()}
        times = {name: quartiles.median for name, quartiles in benchmark.interleave(tasks, ROUNDS).items()}
    told = tuple(_layer_time(name, layer, times) for name, layer in layers.items())
    whole = times["network before"]
    current = times.get("network now", whole)
    costs = Costs(
        total=current, limit=share * whole, whole=whole, per_unit={one.name: one.per_unit for one in told},
        unit="milliseconds",
    )  # fmt: skip
    plan = TimePlan(input=shape, rounds=ROUNDS, network=whole, now=current, predicted=current, layers=told)
    return costs, plan


def _forward(network: nn.Module, images: Tensor) -> None:
    with evaluating(network), calling(network, images):
        wait(network(images.to(dtype_of(network))))


def _inputs_of_layers(network: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """The input of every call of every DAU layer, in a forward pass of the network on the images."""
    found: dict[str, list[Tensor]] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda module, inputs: found.setdefault(name, []).append(inputs[0])

    hooks = [layer.register_forward_pre_hook(remember(name)) for name, layer in dau_layers(network).items()]
    try:
        _quiet(partial(_forward, network, images))()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _half_of(layer: DAUConv2d) -> DAUConv2d:
    """A copy with a random half of the units."""
    half, units = copy.deepcopy(layer), layer.weight.numel()
    keep = torch.zeros(units, dtype=torch.bool)
    keep[torch.randperm(units, generator=torch.Generator().manual_seed(0))[: units // 2]] = True
    half.keep_units(keep.reshape(layer.weight.shape))
    return half


def _run(layer: DAUConv2d, inputs: list[Tensor]) -> None:
    for one in inputs:
        wait(layer(one))


def _quiet(task: Callable[[], Any]) -> Callable[[], Any]:
    """The task without gradients."""
    return torch.no_grad()(task)


def _layer_time(name: str, layer: DAUConv2d, times: Mapping[str, float]) -> LayerTime:
    units, full = layer.weight.numel(), times.get(f"all {name}", 0.0)
    gone = units - units // 2
    slower = max(0.0, full - times.get(f"half {name}", 0.0))
    # The general form is one dense convolution, whatever the number of its units.
    per_unit = slower / gone if gone and layer.form == "bilinear" else 0.0
    return LayerTime(name=name, units=units, fixed=max(0.0, full - per_unit * units), per_unit=per_unit)
