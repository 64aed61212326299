"""Describe a checkpoint, or a network of daukit's that has no file yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.checkpoint.header import Header
from daukit.checkpoint.stored import to_store
from daukit.models.costs import Cost, default_cost
from daukit.models.tables import (
    LayerSize,
    PaperRow,
    empty_model,
    layer_sizes,
    paper_rows,
    parameter_count,
    unit_count,
)
from daukit.results import Count, Positive, Share
from daukit.workflows.costs import cost_of_checkpoint
from daukit.workflows.layers import StoredLayer, stored_layer_fields

_UNCOUNTED = ("running_mean", "running_var", "num_batches_tracked", "unit_counts")
"""Ends of the names of tensors that hold no parameters."""


@dataclass(frozen=True, kw_only=True)
class LayerInfo(StoredLayer):
    """One DAU layer of a file, measured.

    Attributes:
        units_per_filter: mean number of units per (output, input) pair.
        parameters: numbers in its tensors.
        displacement_bytes: bytes of its displacements in a file: a byte a coordinate where they are settled on whole
            pixels, two beyond 127 pixels, else those of the numbers.
        mean_displacement: mean length of a displacement in input pixels, over all units, in a layer of whole pixels as
            they are rounded; None without units.
        largest_on_axis: largest |y| or |x| of a displacement in input pixels, which the limit applies to; None without
            units.
        share_at_limit: share of units with a displacement at the limit on either axis.
    """

    units_per_filter: Positive
    parameters: Count
    displacement_bytes: Count
    mean_displacement: Positive | None
    largest_on_axis: Positive | None
    share_at_limit: Share


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One operation that made a file.

    Attributes:
        operation: name of the operation.
        arguments: its arguments.
        date: when it ran (ISO 8601).
        source: SHA-256 of the file that it read.
        version: version of daukit.
    """

    operation: str
    arguments: dict[str, Any]
    date: str
    source: str | None
    version: str


@dataclass(frozen=True, kw_only=True)
class FileInfo(Cost):
    """The content of a checkpoint.

    Attributes:
        file: the checkpoint.
        bytes: its size.
        architecture: name or factory of the network with its options; or the kind of file that it was imported from.
        modules: how modules differ from what the factory builds, by name.
        layers: the DAU layers.
        units: number of all units.
        parameters: number of all parameters.
        preprocessing: mean, std, channel_order, value_range, input_size and class_names that the network expects.
        history: operations that made the file, oldest first.
    """

    file: Path | None
    bytes: Count | None
    architecture: dict[str, Any]
    modules: dict[str, dict[str, Any]]
    layers: tuple[LayerInfo, ...]
    units: Count
    parameters: Count
    preprocessing: dict[str, Any] | None
    history: tuple[HistoryEntry, ...]


@dataclass(frozen=True, kw_only=True)
class NetworkInfo(Cost):
    """The sizes of a network of daukit's.

    Attributes:
        model: its name.
        config: the options given.
        units: number of all units.
        parameters: number of all parameters, biases and normalisation included.
        layers: the layers with weights.
        paper: numbers of the paper's tables beside those of this network.
    """

    model: str
    config: dict[str, Any]
    units: Count
    parameters: Count
    layers: tuple[LayerSize, ...]
    paper: tuple[PaperRow, ...]


def describe_file(checkpoint: Checkpoint, *, model: str | None = None) -> FileInfo:
    """Describe a checkpoint: its layers, displacements, totals, cost and history.

    Args:
        checkpoint: any checkpoint; only where it names a network of daukit's is that network looked at.
        model: name or factory of its network, where the checkpoint does not name one of daukit's; needed for the cost.

    Raises:
        CheckpointError: the tensors of a layer disagree with the header, or hold NaN or infinity.
    """
    header = checkpoint.header
    layers = tuple(_layer(checkpoint, name) for name in checkpoint.layer_names)
    counted = (name for name in checkpoint.tensors if not name.endswith(_UNCOUNTED) and name not in header.tied)
    cost = cost_of_checkpoint(checkpoint, {layer.name: layer.units for layer in layers}, model)
    return FileInfo(
        file=checkpoint.path,
        bytes=checkpoint.file_size,
        architecture=header.architecture,
        modules=header.modules,
        layers=layers,
        units=sum(layer.units for layer in layers),
        parameters=sum(checkpoint.tensors[name].numel() for name in counted),
        preprocessing=None if header.preprocessing is None else header.preprocessing.to_json(),
        history=history_of(header),
        **_fields(cost),
    )


def describe_network(name: str, config: Mapping[str, Any] | None = None) -> NetworkInfo:
    """Describe a network of daukit's without making its tensors: its layers, cost, and the paper's count.

    Args:
        name: as in ``daukit.create_model``.
        config: options of the network.

    Raises:
        ValueError: there is no network of this name, or its options are wrong.
        TypeError: it has no such options.
        RuntimeError: torch cannot make layers of such sizes.
    """
    network = empty_model(name, **(config or {}))
    return NetworkInfo(
        model=name,
        config=dict(config or {}),
        units=unit_count(network),
        parameters=parameter_count(network),
        layers=tuple(layer_sizes(network)),
        paper=tuple(paper_rows(network)),
        **_fields(default_cost(network)),
    )


def _fields(cost: Cost) -> dict[str, Any]:
    return {"input": cost.input, "multiply_adds": cost.multiply_adds}


def history_of(header: Header) -> tuple[HistoryEntry, ...]:
    """The operations that made a file, oldest first."""
    return tuple(_entry(entry) for entry in header.history)


def architecture_in_words(architecture: Mapping[str, Any]) -> str:
    """A network's name with its options, as one would call it; or what a file of layers was."""
    if "imported" in architecture:
        return f"layers of a {architecture['imported']} file"
    config = ", ".join(f"{key}={value}" for key, value in architecture.get("config", {}).items())
    return f"{architecture.get('name', architecture.get('factory'))}({config})"


def _entry(entry: Mapping[str, Any]) -> HistoryEntry:
    said = {key: entry[key] for key in ("operation", "arguments", "date", "version")}
    return HistoryEntry(source=entry.get("source"), **said)


def _layer(checkpoint: Checkpoint, name: str) -> LayerInfo:
    layer, key = checkpoint.layer(name), f"{name}.mu"
    own = [
        tensor.numel()
        for other, tensor in checkpoint.tensors.items()
        if other.rpartition(".")[0] == name and not other.endswith("unit_counts")
    ]
    return LayerInfo(
        **stored_layer_fields(layer),
        units_per_filter=layer.weight.numel() / layer.counts.numel(),
        parameters=sum(own),
        displacement_bytes=to_store({key: checkpoint.tensors[key]}, checkpoint.header)[key].nbytes,
        **_displacements(layer.displacements, layer.description["dilation"], layer.limit),
    )


def _displacements(mu: Tensor, dilation: tuple[int, int], limit: float | None) -> dict[str, Any]:
    """Fields of ``LayerInfo`` about displacements ``mu`` (2, units) in dilated pixels; ``limit`` is in the same."""
    if mu.numel() == 0:
        return {"mean_displacement": None, "largest_on_axis": None, "share_at_limit": 0.0}
    pixels = torch.tensor(dilation)[:, None] * mu  # of the layer's input
    return {
        "mean_displacement": float(pixels.double().norm(dim=0).mean()),
        "largest_on_axis": float(pixels.double().abs().max()),
        "share_at_limit": 0.0 if limit is None else float((mu.abs() >= limit).any(0).double().mean()),
    }
