"""The shape of the images that a checkpoint's network takes."""

from __future__ import annotations

from torch import nn

from daukit.checkpoint import Checkpoint
from daukit.errors import CheckpointError, in_words_of_caller, naming
from daukit.models.inputs import input_channels, known_input_size


def image_shape(
    checkpoint: Checkpoint, network: nn.Module, size: tuple[int, int] | None = None
) -> tuple[int, int, int]:
    """(channels, height, width) of one image for ``network``, which was built from ``checkpoint``.

    Args:
        checkpoint: its preprocessing or its network's options tell the size.
        network: tells the number of channels.
        size: (height, width), where the checkpoint does not tell them or others are wanted.

    Raises:
        CheckpointError: neither ``size`` nor the file tells the height and width, or no layer tells the channels.
    """
    size = size or known_input_size(checkpoint.header.architecture, checkpoint.header.preprocessing)
    if size is None:
        option = in_words_of_caller("size=(H, W)", "--size H,W")
        raise CheckpointError(f"{checkpoint.called}: does not tell its network's input size; give it with {option}")
    with naming(checkpoint.called):
        return input_channels(network, size), *size
