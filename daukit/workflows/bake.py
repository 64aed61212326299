"""Bake a checkpoint: export its network, with plain convolutions in place of DAU layers, as a program."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from daukit import baking
from daukit.checkpoint import Checkpoint, build_model
from daukit.errors import DaukitError, naming
from daukit.files import check_output, write_atomic
from daukit.models.running import copy_of, dtype_of, largest_difference
from daukit.models.structure import dau_layers
from daukit.results import Count, Positive, Size
from daukit.workflows.shapes import image_shape
from daukit.workflows.timing import ForwardTimes, time_networks

SUFFIX = ".pt2"
"""End of the name of a program."""


@dataclass(frozen=True, kw_only=True)
class BakedLayer:
    """A DAU layer that became plain convolutions.

    Attributes:
        name: its name in the network.
        units: number of units that the filters stand for.
        kernel_size: sides (y, x) of the filters, in taps.
    """

    name: str
    units: Count
    kernel_size: tuple[Size, Size]


@dataclass(frozen=True, kw_only=True)
class BakedProgram:
    """A network whose DAU layers became plain convolutions, and the program exported from it.

    Attributes:
        layers: the DAU layers.
        difference: largest difference from the network in float64, as a share of the largest output.
        rounding: the same in the dtype of the program.
        time: times of the forward pass of the network and of the baked one.
        output: the program written; None where none was.
        bytes_before: size of the checkpoint.
        bytes_after: size of the program.
    """

    layers: tuple[BakedLayer, ...]
    difference: Positive
    rounding: Positive
    time: ForwardTimes
    output: Path | None
    bytes_before: Count | None
    bytes_after: Count


def bake_checkpoint(
    checkpoint: Checkpoint,
    output: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
) -> BakedProgram:
    """Bake a checkpoint's network, compare the two and their times, and write the ``torch.export`` program.

    Args:
        checkpoint: any network.
        output: the program to write, a ``.pt2`` file; None writes nothing.
        size: (height, width) of the input, where the checkpoint does not tell them.
        model: as in ``daukit.load``.
        device: where to measure the times.
        seed: seed of the images on which the networks are compared.
        overwrite: whether ``output`` may exist.

    Raises:
        CheckpointError: the network cannot be built, baked, run or exported, or nothing tells the size of its input.
        OutputError: ``output`` cannot be written.
        DaukitError: the baked network differs by more than rounding.
    """
    if output is not None:
        sources = [] if checkpoint.path is None else [checkpoint.path]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=[SUFFIX])
    network = build_model(checkpoint, model=model)
    shape = image_shape(checkpoint, network, size)
    generator = torch.Generator().manual_seed(seed)
    example = torch.randn(2, *shape, dtype=dtype_of(network), generator=generator)  # (N, C, H, W)
    with naming(checkpoint.called):
        twin = baking.bake(network)
        difference = _exact_difference(network, example)
        rounding = largest_difference(network, twin, example)
        program = baking.export(twin, example, notes_of(checkpoint))
    result = BakedProgram(
        layers=baked_layers(network, twin),
        difference=difference,
        rounding=rounding,
        time=time_networks(network, twin, shape, device=device),
        output=output,
        bytes_before=checkpoint.file_size,
        bytes_after=len(program),
    )
    if output is not None:
        write_atomic(output, program, overwrite=overwrite)
    return result


def notes_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Text files that the program carries: the header, and what others said in the file's metadata."""
    notes = {"daukit": checkpoint.header.to_json()}
    if checkpoint.metadata:
        notes["metadata"] = json.dumps(checkpoint.metadata, sort_keys=True)
    return notes


def _exact_difference(network: nn.Module, example: Tensor) -> float:
    """Difference of a twin from its network in float64, where rounding is small; refuses one that is no twin."""
    exact = copy_of(network).double()
    difference = largest_difference(exact, baking.bake(exact), example.double())
    if not difference <= baking.EXACT_LIMIT:
        raise DaukitError(
            f"the baked network differs by {difference:.2g} of the largest output, where {baking.EXACT_LIMIT:g} is "
            "allowed; nothing was written"
        )
    return difference


def baked_layers(network: nn.Module, twin: nn.Module) -> tuple[BakedLayer, ...]:
    """The DAU layers of a network, with the filters that they are in its twin."""
    result = []
    for name, layer in dau_layers(network).items():
        (taps,) = [m for m in twin.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1:]
        height, width = taps.kernel_size
        result.append(BakedLayer(name=name, units=layer.weight.numel(), kernel_size=(height, width)))
    return tuple(result)
