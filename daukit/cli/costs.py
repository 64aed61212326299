"""Multiply-adds of a file's network for one image of its size, where file and network tell which that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from daukit.checkpoint import Checkpoint


def file_cost(checkpoint: Checkpoint, units: Mapping[str, int], model: str | None = None) -> dict[str, Any]:
    """``{"input", "multiply_adds"}`` with ``units`` in the DAU layers of the network; both None where nobody tells.

    Only the header is read. A user's network is built where its factory is named, as no file may choose what code runs.
    """
    from daukit.cli.measures import input_shape
    from daukit.errors import DaukitError
    from daukit.models.callables import in_words
    from daukit.models.factory import build_architecture
    from daukit.models.structure import apply_differences

    header = checkpoint.header
    if model is None and "name" not in header.architecture:
        return _unknown()
    import torch

    built = header.architecture if model is None else in_words(model)
    try:
        network = build_architecture({**built, "config": header.architecture.get("config", {})})
        with torch.device("meta"):
            apply_differences(network, header.modules)
        return _cost(network, (1, *input_shape(checkpoint, network, None)[1:]), units)
    except (DaukitError, ValueError, TypeError, RuntimeError):
        return _unknown()  # whoever asks for more than sizes gets to know why


def network_cost(network: nn.Module) -> dict[str, Any]:
    """As ``file_cost``, of a network of daukit's."""
    from daukit.models import record_of
    from daukit.models.factory import option_of

    record = record_of(network)
    size = None if record is None else option_of(record.architecture, "input_size")
    channels = None if record is None else option_of(record.architecture, "in_channels")
    if size is None or channels is None:
        return _unknown()
    return _cost(network, (1, channels, *size), {})


def in_words_of(cost: Mapping[str, Any]) -> str:
    """The image that a cost is of, as ``"one image of 3 x 224 x 224"``."""
    return f"one image of {' x '.join(map(str, cost['input'][1:]))}"


def _cost(network: nn.Module, shape: Sequence[int], units: Mapping[str, int]) -> dict[str, Any]:
    from daukit.models.costs import multiply_adds

    return {"input": list(shape), "multiply_adds": sum(multiply_adds(network, shape, units).values())}


def _unknown() -> dict[str, Any]:
    return {"input": None, "multiply_adds": None}
