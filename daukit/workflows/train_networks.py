"""Networks to train: new ones that fit the images, and those of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import Dataset, PictureFolder
from daukit.models import ModelRecord, record_of, set_record
from daukit.models.factory import accepted_options, build_new
from daukit.models.inputs import known_input_size
from daukit.models.specs import architecture_of, is_factory
from daukit.training import hold


def new_network(model: str, config: Mapping[str, Any], images: Dataset) -> nn.Module:
    """Build a network, sized to the images if it is daukit's, with the preprocessing that the images need.

    Raises:
        TypeError: it takes no such option.
        CheckpointError: an option has a wrong value, or a user's factory fails.
    """
    expected = images.preprocessing()
    if isinstance(images, PictureFolder):  # takes any size, so the network says which
        size = known_input_size(architecture_of(model, config), None) or expected.input_size
        expected = replace(expected, input_size=size)
    if not is_factory(model):
        fitted = {
            "in_channels": len(expected.mean),
            "num_classes": images.info.num_classes,
            "input_size": list(expected.input_size),
        }
        config = {**accepted_options(model, fitted), **config}
    architecture = architecture_of(model, config)
    network = build_new(architecture)
    set_record(network, ModelRecord(architecture, expected))
    return network


def loaded_network(checkpoint: Checkpoint, images: Dataset, *, model: str | None = None) -> nn.Module:
    """Build a checkpoint's network; what the file does not say of preprocessing and names of classes, the images do.

    The size of its input becomes that of the images, or of the crops of them, that it learns from.

    Units at whole pixels stay there: they were put there by a training or by somebody, and weights get used to it.
    """
    network = build_model(checkpoint, model=model)
    record = record_of(network)
    assert record is not None  # build_model set it
    record.preprocessing = record.preprocessing or images.preprocessing()
    if not (isinstance(images, PictureFolder) or images.info.sizes_differ):  # they come in a size of their own
        record.preprocessing = replace(record.preprocessing, input_size=images.preprocessing().input_size)
    if not record.preprocessing.class_names:
        record.preprocessing = replace(record.preprocessing, class_names=images.info.class_names)
    hold(network)
    return network
