"""Take back the last rescale of a file by factors, where that gives back what was there bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from daukit.checkpoint import Checkpoint, derives, stored_digest
from daukit.errors import CheckpointError, naming
from daukit.limits import is_number
from daukit.rescale.displacements import rescale_factors
from daukit.rescale.modes import Mode


@dataclass(frozen=True)
class Undoing:
    """A rescale that was taken back.

    Attributes:
        mode: the mode that it had.
        factors: its factors, by layer.
        same_file: whether the result makes the very file that was rescaled, by its SHA-256 in the history; None if the
            history does not tell it.
    """

    mode: Mode
    factors: dict[str, float]
    same_file: bool | None


@derives
def undo_rescale(checkpoint: Checkpoint) -> tuple[Checkpoint, Undoing]:
    """Take back the rescale by factors that is the last operation of a checkpoint's history.

    Args:
        checkpoint: it is not changed.

    Returns:
        The checkpoint as it was before, without the operation in its history.

    Raises:
        CheckpointError: the last operation is another one, or a rescale that did not keep every bit: by factors that
            are no powers of two, of rounded displacements, or of windows of the general form.
    """
    entry = checkpoint.header.history[-1] if checkpoint.header.history else None
    factors = _factors_of(checkpoint, entry)
    assert entry is not None
    mode: Mode = entry["arguments"]["mode"]
    for name, factor in factors.items():
        reason = _lost(checkpoint, name, factor, mode)
        if reason is not None:
            raise CheckpointError(
                f"{checkpoint.called}: the rescale of layer {name!r} by {factor:g} cannot be taken back exactly: "
                f"{reason}; rescale by its inverse, {1 / factor:g}, comes near"
            )
    with naming(checkpoint.called):
        back, _ = rescale_factors(checkpoint, {name: 1 / factor for name, factor in factors.items()}, mode)
    history, source = checkpoint.header.history[:-1], entry.get("source")
    kept = Checkpoint(replace(back.header, history=history), back.tensors)
    former = [entry["arguments"].get("factors") for entry in history]
    earlier = {name for factors_then in former if isinstance(factors_then, dict) for name in factors_then}
    for untouched in (set(factors) - earlier, set(factors)):
        modules = _without_scaling(checkpoint, kept, untouched)
        found = Checkpoint(replace(kept.header, modules=modules), kept.tensors)
        if source is not None and stored_digest(found) == source:
            return found, Undoing(mode, factors, True)
    same = None if source is None else stored_digest(kept) == source
    return kept, Undoing(mode, factors, same)


def _without_scaling(before: Checkpoint, after: Checkpoint, names: set[str]) -> dict[str, Any]:
    """What ``after`` says of modules, without what scaling had made differ from the factory's in some layers."""
    modules = dict(after.header.modules)
    for name in names & set(modules):
        was, now = before.header.modules.get(name, {}), modules[name]
        left = {key: value for key, value in now.items() if key == "type" or was.get(key) == value}
        if left.keys() == {"type"}:
            del modules[name]
        else:
            modules[name] = left
    return modules


def _factors_of(checkpoint: Checkpoint, entry: Mapping[str, Any] | None) -> dict[str, float]:
    if entry is None or entry["operation"] != "rescale":
        last = "its history is empty" if entry is None else f"the last operation is {entry['operation']!r}"
        raise CheckpointError(f"{checkpoint.called}: {last}, and only a rescale by factors can be taken back")
    factors = entry["arguments"].get("factors")
    if not isinstance(factors, dict) or entry["arguments"].get("mode") not in ("paper", "exact"):
        raise CheckpointError(
            f"{checkpoint.called}: the last rescale removed pools or strides, which cannot be taken back, because the "
            "file does not say all of what they were; go back to the file before"
        )
    for name, factor in factors.items():
        if not is_number(factor) or not (factor > 0 and math.isfinite(factor)):
            raise CheckpointError(f"{checkpoint.called}: its history says that {name!r} was rescaled by {factor!r}")
    return {str(name): float(factor) for name, factor in factors.items()}


def _lost(checkpoint: Checkpoint, name: str, factor: float, mode: Mode) -> str | None:
    """What of a layer's bits a rescale may have lost; None where none."""
    layer = checkpoint.layer(name)
    if mode == "exact" or factor == 1:
        return None  # dilations are integers
    if math.frexp(factor)[0] != 0.5:
        return "only powers of two keep every bit"
    if layer.description["form"] == "gaussian":
        return "its window was made anew"
    if layer.reads_whole_pixels and factor < 1 and bool((layer.mu == layer.mu.round()).all()):
        return "its displacements were rounded to whole pixels"
    return None
