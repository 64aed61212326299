"""A file in memory, with no model class: what file-level operations work on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint.header import Header, history_entry
from daukit.errors import CheckpointError
from daukit.models.structure import Description


@dataclass(frozen=True)
class Checkpoint:
    """A file in memory: its header and all its tensors, with no model class.

    Attributes:
        header: what the file says of itself.
        tensors: by state-dict name.
        path: where it was read from, if anywhere.
        digest: SHA-256 of the file it was read from, for the history of what is made of it.
    """

    header: Header
    tensors: dict[str, Tensor]
    path: Path | None = None
    digest: str | None = None

    def layer(self, name: str) -> LayerUnits:
        """The units of the DAU layer called ``name``, checked.

        Raises:
            CheckpointError: there is no such layer, its tensors disagree with the header, or they hold NaN or infinity.
        """
        for description in self.header.layers:
            if description["name"] == name:
                return _layer_units(description, self.tensors, self.path)
        near = difflib.get_close_matches(name, self.layer_names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(f"{self.path}: there is no DAU layer {name!r}{hint} (layers: {self.layer_names})")

    @property
    def metadata(self) -> dict[str, str]:
        """What others say in the file's metadata, as its format or its licence; every operation carries it along."""
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
    def pair(self) -> Tensor:
        """The pair of every unit: (units,) int64."""
        return torch.repeat_interleave(torch.arange(self.counts.numel()), self.counts)

    @property
    def inputs_per_group(self) -> int:
        """Input channels that one output channel reads."""
        return int(self.description["in_channels"] // self.description["groups"])


def _layer_units(description: Description, tensors: dict[str, Tensor], path: Path | None) -> LayerUnits:
    name = description["name"]
    try:
        weight, mu = tensors[f"{name}.weight"], tensors[f"{name}.mu"]
        pairs = description["out_channels"] * (description["in_channels"] // description["groups"])
        counts = tensors.get(f"{name}.unit_counts")
    except KeyError as error:
        raise CheckpointError(f"{path}: layer {name!r}: there is no {error}; the file is damaged") from None
    # What the header says is only compared, never allocated: it may be absurd.
    units = pairs * description["units"] if counts is None else int(counts.long().sum())
    given = pairs if counts is None else counts.numel()
    if mu.shape != (2, *weight.shape) or given != pairs or units != weight.numel():
        raise CheckpointError(
            f"{path}: layer {name!r}: weight {tuple(weight.shape)}, mu {tuple(mu.shape)} and {given} "
            f"unit counts summing to {units} do not fit {pairs} pairs; the file is damaged"
        )
    counts = torch.full((pairs,), description["units"]) if counts is None else counts.long()
    for kind, tensor in (("weight", weight), ("mu", mu)):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CheckpointError(
                f"{path}: layer {name!r}: {bad} of {tensor.numel()} values of {kind} are NaN or infinite"
            )
    return LayerUnits(name, description, weight.flatten(), mu.reshape(2, -1), counts)
