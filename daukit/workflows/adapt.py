"""Make another network of a trained one's layers, as a segmentation network of a classifier, and write it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from daukit.checkpoint import Checkpoint, from_model, history_entry
from daukit.datasets.classes import read_class_names
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.models import ModelRecord, set_record
from daukit.models.arguments import check_options
from daukit.models.factory import build_new, options_of, shared_options
from daukit.models.specs import Architecture, architecture_of
from daukit.tasks import task_name
from daukit.workflows.adapt_layers import AdaptedLayer, take_layers
from daukit.workflows.convert import Conversion, Destination, written

_CLASSES = "num_classes"


@dataclass(frozen=True, kw_only=True)
class Adaptation(Conversion):
    """A network that was made with the layers of another one.

    Attributes:
        source: always daukit.
        layers: its layers that hold tensors, in its order.
        left: layers of the file's network that found no place.
        notes: what may not be as it was meant.
    """

    source: Literal["daukit"]
    layers: tuple[AdaptedLayer, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...]


def adapt_checkpoint(
    checkpoint: Checkpoint,
    to: str,
    config: Mapping[str, Any] | None = None,
    destination: Destination | None = None,
    *,
    classes: Path | None = None,
    seed: int = 0,
    model: str | None = None,
) -> Adaptation:
    """Make another network of a checkpoint's layers, as ``take_layers`` does, and write it.

    Args:
        checkpoint: of a trained network; it is not changed.
        to: the new network: a name of ``daukit.models``, ``"package.module:factory"`` or ``"file.py:factory"``.
        config: its options; others are those of the checkpoint's network, as far as it has them. The number of classes
            is one of these only if both networks are for the same task.
        destination: where to write; None: only describe it.
        classes: file with the name of a class per line, for the new network.
        seed: of the layers that begin anew.
        model: as in ``daukit.load``, for the checkpoint.

    Raises:
        ValueError: the number of classes is not that of their names.
        TypeError: there is no such option.
        CheckpointError: there is no such network, it is the checkpoint's, or no layer fits it.
        DataError: the names of the classes cannot be read.
        OutputError: the destination cannot be written.
    """
    if destination is not None:
        destination.check([path for path in (checkpoint.path, classes) if path is not None])
    names = None if classes is None else read_class_names(classes)
    architecture, keeps_classes = _architecture(checkpoint, to, dict(config or {}), names, model)
    if architecture == checkpoint.header.architecture:
        how = in_words_of_caller("config", "--to-arg")
        raise CheckpointError(f"{checkpoint.called}: is this network already, so nothing was converted; give {how}")
    torch.manual_seed(seed)
    network = _built(architecture, set(config or {}), checkpoint)
    adapted = take_layers(network, checkpoint, to, model=model)
    preprocessing = checkpoint.header.preprocessing
    if preprocessing is not None:
        kept = preprocessing.class_names if keeps_classes else ()
        preprocessing = replace(preprocessing, class_names=kept if names is None else names)
    arguments = {"network": architecture, "new_layers": list(adapted.new), "left": list(adapted.left)}
    history = [*adapted.history, history_entry("adapt", arguments, checkpoint.digest)]
    set_record(network, ModelRecord(architecture, preprocessing, history, dict(checkpoint.header.foreign)))
    return Adaptation(
        file=checkpoint.path,
        source="daukit",
        architecture=architecture,
        layers=adapted.layers,
        left=adapted.left,
        notes=adapted.notes,
        **written(from_model(network), destination),
    )


def _built(architecture: Architecture, given: Set[str], checkpoint: Checkpoint) -> nn.Module:
    """The new network; where it refuses its options, say which of them nobody gave."""
    config = architecture.get("config", {})
    try:
        return build_new(architecture)
    except (CheckpointError, TypeError) as error:
        check_options(architecture.get("name", ""), {key: config[key] for key in given & set(config)})
        taken = sorted(set(config) - given)
        if not taken:
            raise
        how = in_words_of_caller("config", "--to-arg")
        raise CheckpointError(
            f"{error} (taken from {checkpoint.called}: {', '.join(taken)}; give others by {how})"
        ) from None


def _architecture(
    checkpoint: Checkpoint, to: str, config: Mapping[str, Any], names: tuple[str, ...] | None, model: str | None
) -> tuple[Architecture, bool]:
    """The new network, and whether it has the classes of the checkpoint's."""
    former = checkpoint.header.architecture
    options = shared_options(former, to, config, model=model)
    keeps_classes = task_name(former) == task_name(architecture_of(to, options))
    if not keeps_classes and _CLASSES not in config:
        options.pop(_CLASSES, None)
    if names is not None and _CLASSES in options_of(to):
        if config.get(_CLASSES, len(names)) != len(names):
            raise ValueError(f"{_CLASSES} is {config[_CLASSES]}, and there are {len(names)} names of classes; drop one")
        options[_CLASSES] = len(names)
    return architecture_of(to, options), keeps_classes
