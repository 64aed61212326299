"""Count the multiply-adds of a checkpoint's network for one image."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from daukit.checkpoint import Checkpoint
from daukit.errors import DaukitError
from daukit.models.callables import in_words
from daukit.models.costs import UNKNOWN, Cost, cost_of
from daukit.models.factory import build_architecture
from daukit.models.structure import apply_differences
from daukit.workflows.shapes import image_shape


def cost_of_checkpoint(
    checkpoint: Checkpoint,
    units: Mapping[str, int],
    model: str | None = None,
    size: tuple[int, int] | None = None,
) -> Cost:
    """Multiply-adds of the forward pass for one image, with ``units`` in the DAU layers of the network.

    Only the header is read, so the tensors need not be there.

    Args:
        checkpoint: its network is built without memory for its tensors. A user's network is built only where ``model``
            names it: no file may choose what code runs.
        units: units of every DAU layer by name.
        model: as in ``daukit.load``.
        size: (height, width) of the image, where another one than the checkpoint's is wanted.

    Returns:
        ``UNKNOWN`` where the network cannot be built or nothing tells the size of its input.
    """
    header = checkpoint.header
    if model is None and "name" not in header.architecture:
        return UNKNOWN
    built = header.architecture if model is None else in_words(model)
    try:
        network = build_architecture({**built, "config": header.architecture.get("config", {})})
        with torch.device("meta"):
            apply_differences(network, header.modules)
        return cost_of(network, image_shape(checkpoint, network, size), units)
    except (DaukitError, ValueError, TypeError, RuntimeError):
        return UNKNOWN  # whoever asks for more than sizes gets to know why
