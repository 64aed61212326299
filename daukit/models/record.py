"""A model's record between load and save: how to rebuild it, how to feed it, and the operations done to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from daukit.preprocessing import Preprocessing

_ATTRIBUTE = "_daukit_record"


@dataclass
class ModelRecord:
    """The part of a file that is neither tensors nor structure.

    Attributes:
        architecture: ``{"name", "config"}`` for a model of ``daukit.models``, ``{"factory", "config"}`` for a user's
            own, whose factory is ``"module:function"``.
        preprocessing: what the model expects of its input.
        history: one entry per operation, oldest first; a record, never replayed.
        metadata: what others say in the file's metadata, as its licence.
    """

    architecture: dict[str, Any]
    preprocessing: Preprocessing | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def record_of(model: nn.Module) -> ModelRecord | None:
    """The model's record, or None for a model that daukit did not build."""
    record = model.__dict__.get(_ATTRIBUTE)
    return record if isinstance(record, ModelRecord) else None


def set_record(model: nn.Module, record: ModelRecord | None) -> None:
    """Attach ``record`` to ``model``, or take it off; ``copy.deepcopy`` takes it along."""
    model.__dict__.pop(_ATTRIBUTE, None)
    if record is not None:
        model.__dict__[_ATTRIBUTE] = record
