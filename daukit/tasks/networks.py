"""Networks as tasks call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from daukit.datasets import Dataset, DatasetInfo
from daukit.errors import DataError
from daukit.models.inputs import told_channels
from daukit.models.usercode import calling
from daukit.preprocessing import Preprocessing

_SIDE = 128


def output_of(model: nn.Module, inputs: Tensor, method: Callable[[Tensor], Any] | None = None) -> Any:
    """What ``model``, or a ``method`` of it, returns for normalised images (N, C, H, W), in the type of its parameters.

    Raises:
        NetworkError: its forward fails on them.
    """
    dtype = next((p.dtype for p in model.parameters()), inputs.dtype)  # a network of a float64 file computes in float64
    with calling(model, inputs):
        return (method or model)(inputs.to(dtype))


def sample_of(dataset: Dataset, model: nn.Module, preprocessing: Preprocessing, *, network: str, images: str) -> Tensor:
    """The corner of a data set's first image, (1, C, h, w) uint8, to try a network on that takes images of any size.

    Raises:
        DataError: the network takes images of other channels; ``network`` and ``images`` are what it calls the two.
    """
    corner = dataset.batch(slice(1)).images[..., :_SIDE, :_SIDE]
    taken = told_channels(model) or len(preprocessing.mean)
    given = corner.shape[1]
    if given != taken or given != len(preprocessing.mean):
        raise DataError(f"{network} takes {_channels(taken)}, {images} have {_channels(given)}")
    return corner


def _channels(number: int) -> str:
    return f"{number} channel{'' if number == 1 else 's'}"


def check_classes(count: int, expected: Preprocessing, info: DatasetInfo, *, network: str, images: str) -> None:
    """Raise ``DataError`` if images have more classes than the ``count`` of a network, or have them in another order.

    Names that are not the same may be other words for the same classes, and are no error.
    """
    if count < info.num_classes:
        raise DataError(
            f"{network} has {count} classes, {images} have {info.num_classes}; "
            "`daukit convert FILE --to NETWORK --classes classes.txt` makes a network for other classes of its layers"
        )
    own, theirs = tuple(expected.class_names), info.class_names
    if own == theirs or sorted(own) != sorted(theirs):
        return
    place = next(i for i, (one, other) in enumerate(zip(own, theirs, strict=True)) if one != other)
    raise DataError(
        f"{images} have the classes of {network} in another order: label {place} is {theirs[place]!r} there, and "
        f"{own[place]!r} to the network; labels and names must be in the network's order"
    )
