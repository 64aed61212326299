"""Networks to train that begin with the layers of another network, as a segmentation network with a classifier's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset
from daukit.models import record_of
from daukit.training import hold
from daukit.workflows.adapt_layers import Adapted, take_layers
from daukit.workflows.train_networks import loaded_network, new_network


def adapted_network(
    name: str, config: Mapping[str, Any], images: Dataset, checkpoint: Checkpoint, *, model: str | None = None
) -> Adapted:
    """Build a new network and give it all layers of a checkpoint's that fit, as ``take_layers`` does.

    A checkpoint of the very same network is taken as it is. Units at whole pixels stay there, as in ``loaded_network``.

    Args:
        name: the network, as in ``new_network``.
        config: its options, likewise.
        images: to learn from.
        checkpoint: the other network, of which input is normalised as it was.
        model: as in ``daukit.load``, for the checkpoint.

    Raises:
        CheckpointError: as in ``take_layers``.
    """
    network = new_network(name, config, images)
    record = record_of(network)
    assert record is not None and record.preprocessing is not None  # new_network set them
    if record.architecture == checkpoint.header.architecture:
        return Adapted(loaded_network(checkpoint, images, model=model))
    adapted = take_layers(network, checkpoint, name, model=model)
    fed, expected = checkpoint.header.preprocessing, record.preprocessing
    if fed is not None and len(fed.mean) == len(expected.mean):
        record.preprocessing = replace(
            expected, mean=fed.mean, std=fed.std, channel_order=fed.channel_order, value_range=fed.value_range
        )
    record.history = list(adapted.history)
    for layer in adapted.layers:
        if layer.taken_from is not None:
            hold(network.get_submodule(layer.name))
    return adapted
