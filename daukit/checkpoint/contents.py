"""The contents of a file in memory, which operations on files work on; no model class is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint.gate import FLOATS
from daukit.checkpoint.header import Header, history_entry
from daukit.errors import CheckpointError
from daukit.limits import MAX_UNITS, SIGMA_RANGE, in_short
from daukit.models.structure import Description
from daukit.nn.pixels import whole_limit
from daukit.ops.units import pair_of_units
from daukit.texts import did_you_mean


@dataclass(frozen=True)
class Checkpoint:
    """A file in memory: its header and all its tensors, with no model class.

    Attributes:
        header: what the file says of itself.
        tensors: by state-dict name.
        path: where it was read from, if anywhere.
        digest: SHA-256 of the file it was read from, for the history of what is made of it.
        notes: choices made while it was read that a person should know of, a sentence each.
        file_size: bytes of the file or files that it was read from.
    """

    header: Header
    tensors: dict[str, Tensor]
    path: Path | None = None
    digest: str | None = None
    notes: tuple[str, ...] = ()
    file_size: int | None = None

    @property
    def called(self) -> str:
        """Its name in messages."""
        return "the model" if self.path is None else str(self.path)

    def layer(self, name: str) -> LayerUnits:
        """The units of the DAU layer called ``name``, checked.

        Raises:
            CheckpointError: there is no such layer, its tensors disagree with the header, or they hold NaN or infinity.
            TypeError: ``name`` is no text.
        """
        if not isinstance(name, str):
            raise TypeError(f"layer takes the name of a DAU layer, got {type(name).__name__} {in_short(name)}")
        for description in self.header.layers:
            if description["name"] == name:
                return _layer_units(description, self.tensors, self.called)
        hint = did_you_mean(name, self.layer_names)
        raise CheckpointError(
            f"{self.called}: there is no DAU layer {name!r}{hint} (layers: {in_short(self.layer_names, 500)})"
        )

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of others in the file, as its format or its licence; every operation carries it along."""
        return self.header.foreign

    @property
    def layer_names(self) -> list[str]:
        """Names of the DAU layers, in the network's order."""
        return [description["name"] for description in self.header.layers]

    def derive(self, operation: str, arguments: Mapping[str, Any], **header: Any) -> Checkpoint:
        """A copy with changed header fields, ``operation`` in its history, and the same tensors by reference."""
        entry = history_entry(operation, arguments, self.digest)
        changed = replace(self.header, history=[*self.header.history, entry], **header)
        return Checkpoint(changed, dict(self.tensors))


@dataclass(frozen=True)
class LayerUnits:
    """The units of one DAU layer, flat, whether the layer is dense or ragged.

    Attributes:
        name: the layer's name.
        description: its entry in the header.
        weight: (units,).
        mu: (2, units), displacement (y, x) in dilated pixels.
        counts: (pairs,) int64, units of every (output, input) pair; pair ``p = out * inputs_per_group + in``.
    """

    name: str
    description: Description
    weight: Tensor
    mu: Tensor
    counts: Tensor

    @property
    def displacements(self) -> Tensor:
        """Where units read: mu, in a layer of whole pixels rounded to them."""
        return self.mu.round() if self.reads_whole_pixels else self.mu

    @property
    def reads_whole_pixels(self) -> bool:
        """True for a layer that reads at whole pixels."""
        return bool(self.description.get("whole_pixels", False))

    @property
    def limit(self) -> float | None:
        """The limit that displacements are projected to, in dilated pixels; in a layer of whole pixels a whole one."""
        limit = self.description["max_displacement"]
        return None if limit is None else whole_limit(limit) if self.reads_whole_pixels else float(limit)

    @property
    def pair(self) -> Tensor:
        """The pair of every unit: (units,) int64."""
        return pair_of_units(self.counts)

    @property
    def inputs_per_group(self) -> int:
        """Input channels that one output channel reads."""
        return int(self.description["in_channels"] // self.description["groups"])


def unit_counts(counts: Tensor, pairs: int, name: str, path: Path | str) -> Tensor:
    """The units of every pair, as int64, of a layer with ``pairs`` of them.

    Raises:
        CheckpointError: ``counts`` are not ``pairs`` whole numbers from 0 to ``MAX_UNITS``.
    """
    if counts.is_floating_point() or counts.dtype == torch.bool or counts.shape != (pairs,):
        raise CheckpointError(
            f"{path}: layer {name!r}: unit_counts must be {pairs:,} whole numbers, one a pair, got {counts.dtype} "
            f"{tuple(counts.shape)}; the file is damaged"
        )
    counts = counts.long()
    least, most = (int(counts.min()), int(counts.max())) if pairs else (0, 0)
    if least < 0 or most > MAX_UNITS:
        raise CheckpointError(
            f"{path}: layer {name!r}: unit_counts from {least:,} to {most:,}; they must lie within [0, {MAX_UNITS:,}]"
        )
    return counts


def check_values(tensor: Tensor, kind: str, name: str, path: Path | str) -> None:
    """Raise ``CheckpointError`` unless the tensor ``kind`` of a layer holds finite floating-point numbers."""
    if tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"{path}: layer {name!r}: {kind} is stored as {tensor.dtype}, and its values are floating-point numbers; "
            "save it as float32"
        )
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise CheckpointError(f"{path}: layer {name!r}: {bad} of {tensor.numel()} values of {kind} are NaN or infinite")
    if kind == "sigma" and not bool(((tensor >= SIGMA_RANGE[0]) & (tensor <= SIGMA_RANGE[1])).all()):
        low, high = SIGMA_RANGE
        raise CheckpointError(f"{path}: layer {name!r}: sigma must lie within [{low:g}, {high:g}] pixels everywhere")


def _layer_units(description: Description, tensors: dict[str, Tensor], path: Path | str) -> LayerUnits:
    name = description["name"]
    kinds = ["weight", "mu", *(["bias"] if description["bias"] else [])]
    kinds += ["sigma"] if description["sigma"] is None else []
    missing = [kind for kind in kinds if f"{name}.{kind}" not in tensors]
    if missing:
        raise CheckpointError(f"{path}: layer {name!r}: there is no {name}.{missing[0]}; the file is damaged")
    weight, mu = tensors[f"{name}.weight"], tensors[f"{name}.mu"]
    pairs = description["out_channels"] * (description["in_channels"] // description["groups"])
    counts = tensors.get(f"{name}.unit_counts")
    # What the header says is only compared, never allocated: it may be absurd.
    counts = None if counts is None else unit_counts(counts, pairs, name, path)
    units = pairs * description["units"] if counts is None else int(counts.sum())
    if mu.shape != (2, *weight.shape) or units != weight.numel() or (counts is None) == description["ragged"]:
        kind = "ragged" if description["ragged"] else "dense"
        raise CheckpointError(
            f"{path}: layer {name!r}: weight {tuple(weight.shape)} and mu {tuple(mu.shape)} are not those of a {kind} "
            f"layer with {units:,} units of {pairs:,} pairs; the file is damaged"
        )
    for kind in kinds:
        check_values(tensors[f"{name}.{kind}"], kind, name, path)
    counts = torch.full((pairs,), description["units"]) if counts is None else counts
    return LayerUnits(name, description, weight=weight.flatten(), mu=mu.reshape(2, -1), counts=counts)
