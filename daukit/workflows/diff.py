"""Tell what two checkpoints differ in: their headers, DAU layers and tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.results import Count, Positive
from daukit.workflows.info import HistoryEntry, history_of


@dataclass(frozen=True, kw_only=True)
class HeaderChange:
    """A value that the headers of two files do not share.

    Attributes:
        key: where it is, its parts joined by dots; layers and modules stand by their names.
        before: value in the first file; None where it has none.
        after: value in the second file; None where it has none.
    """

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class UnitChange:
    """A DAU layer with other numbers of units in two files.

    Attributes:
        layer: its name.
        before: its units in the first file; None where it is none there.
        after: its units in the second file; None where it is none there.
    """

    layer: str
    before: Count | None
    after: Count | None


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """A tensor that two files do not share.

    Attributes:
        name: its name.
        kind: values that differ, a tensor of another shape or type, or one that a single file has.
        before: shape and type in the first file; None where it has none.
        after: shape and type in the second file; None where it has none.
        norm: root of the sum of squares in the first file; None unless shapes are the same and it is finite.
        difference: the same of the difference; None likewise.
        largest: largest absolute difference of two elements; None likewise.
    """

    name: str
    kind: Literal["values", "type", "shape", "removed", "added"]
    before: str | None
    after: str | None
    norm: Positive | None
    difference: Positive | None
    largest: Positive | None


@dataclass(frozen=True, kw_only=True)
class FileDifference:
    """What two files differ in.

    Attributes:
        file: the first file.
        other: the second file.
        same: whether they differ in nothing but their histories.
        header: values of the headers, but for their histories, that are not the same.
        units: DAU layers with other numbers of units.
        tensors: tensors that are not the same.
        equal_tensors: number of tensors that are.
        shared_history: number of operations at the beginning of both histories, whenever they ran.
        history: operations that follow in the first file alone.
        other_history: operations that follow in the second file alone.
    """

    file: Path | None
    other: Path | None
    same: bool
    header: tuple[HeaderChange, ...]
    units: tuple[UnitChange, ...]
    tensors: tuple[TensorChange, ...]
    equal_tensors: Count
    shared_history: Count
    history: tuple[HistoryEntry, ...]
    other_history: tuple[HistoryEntry, ...]


def compare_checkpoints(first: Checkpoint, second: Checkpoint) -> FileDifference:
    """Compare two checkpoints.

    Args:
        first: what changes are counted from.
        second: what they lead to.

    Raises:
        CheckpointError: the tensors of a layer disagree with the header, or hold NaN or infinity.
    """
    header = tuple(_header_changes(_described(first), _described(second)))
    tensors = tuple(_tensor_changes(first.tensors, second.tensors))
    histories = [history_of(each.header) for each in (first, second)]
    shared = _shared(*histories)
    return FileDifference(
        file=first.path,
        other=second.path,
        same=not header and not tensors,
        header=header,
        units=tuple(_unit_changes(first, second)),
        tensors=tensors,
        equal_tensors=len(set(first.tensors) | set(second.tensors)) - len(tensors),
        shared_history=shared,
        history=histories[0][shared:],
        other_history=histories[1][shared:],
    )


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a header says of the network, layers by name; which tensors are stored once is not said of it."""
    said = json.loads(checkpoint.header.to_json())
    layers = {layer["name"]: {k: v for k, v in layer.items() if k != "name"} for layer in said["layers"]}
    names = ("architecture", "modules", "preprocessing")
    return {**{name: said[name] for name in names}, "layers": layers, "metadata": checkpoint.metadata}


def _header_changes(before: Any, after: Any, key: str = "") -> Iterator[HeaderChange]:
    """The innermost values that differ; a list is one value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            inner = f"{key}.{name}" if key else str(name)
            yield from _header_changes(before.get(name), after.get(name), inner)
    elif before != after:
        yield HeaderChange(key=key, before=before, after=after)


def _unit_changes(first: Checkpoint, second: Checkpoint) -> Iterator[UnitChange]:
    before, after = ({name: each.layer(name).weight.numel() for name in each.layer_names} for each in (first, second))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield UnitChange(layer=name, before=before.get(name), after=after.get(name))


def _tensor_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Iterator[TensorChange]:
    for name in dict.fromkeys((*before, *after)):
        change = _tensor_change(name, before.get(name), after.get(name))
        if change is not None:
            yield change


def _tensor_change(name: str, before: Tensor | None, after: Tensor | None) -> TensorChange | None:
    """How a tensor changed; None if it did not."""
    told: dict[str, Any] = {"name": name, "before": _form(before), "after": _form(after)}
    none: dict[str, Any] = {"norm": None, "difference": None, "largest": None}
    if before is None or after is None:
        return TensorChange(kind="added" if before is None else "removed", **told, **none)
    if before.shape != after.shape:
        return TensorChange(kind="shape", **told, **none)
    if before.dtype == after.dtype and torch.equal(before, after):
        return None
    old, new = before.double(), after.double()
    change = torch.where(old == new, 0.0, new - old)  # of two infinities, too
    return TensorChange(
        kind="values" if before.dtype == after.dtype else "type",
        **told,
        norm=_finite(old.norm()),
        difference=_finite(change.norm()),
        largest=_finite(change.abs().max()) if change.numel() else 0.0,
    )


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def _form(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shared(first: tuple[HistoryEntry, ...], second: tuple[HistoryEntry, ...]) -> int:
    """Number of operations at the beginning of both, with the same arguments."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if (one.operation, one.arguments) != (other.operation, other.arguments):
            break
        count += 1
    return count
