"""Evaluate classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.datasets import ImageDataset, Split, load_folder
from daukit.errors import DataError, NetworkError
from daukit.models import record_of
from daukit.models.factory import option_of
from daukit.models.running import evaluating
from daukit.models.usercode import calling, in_one_line, name_of
from daukit.preprocessing import Preprocessing
from daukit.results import Count, Positive, Share

BATCH_SIZE = 250


@dataclass(frozen=True)
class Evaluation:
    """A classifier's accuracy and loss on a data set.

    Attributes:
        accuracy: share of images whose highest score is their label's (top 1).
        loss: mean cross-entropy, in nats.
        images: number of images.
        class_accuracy: accuracy by label; None for a label without images.
    """

    accuracy: Share
    loss: Positive
    images: Count
    class_accuracy: tuple[Share | None, ...]


def evaluate(
    model: nn.Module,
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate ``model`` in eval mode; it and its modules are left in the modes in which they came.

    A network that predicts densely, (N, classes, H, W), is read at position (0, 0): where a rescaled network's
    prediction is that of the network it was made from.

    Args:
        model: maps normalised images to scores (N, classes) or (N, classes, H, W).
        dataset: images and labels.
        preprocessing: what the model expects of its input.
        device: where to compute; the model is moved there.
        batch_size: images at a time.
        on_batch: called with (images done, images in all).

    Raises:
        DataError: the network cannot take the images, or has no score for a label.
    """
    with evaluating(model.to(device)), torch.no_grad():
        check_fits(model, dataset, preprocessing, device)
        scores = _all_scores(model, dataset.images, preprocessing, device, batch_size, on_batch)
    correct = scores.argmax(1) == dataset.labels
    by_class = [correct[dataset.labels == label] for label in range(dataset.info.num_classes)]
    return Evaluation(
        accuracy=float(correct.double().mean()),
        loss=float(F.cross_entropy(scores.double(), dataset.labels)),
        images=len(correct),
        class_accuracy=tuple(float(c.double().mean()) if len(c) else None for c in by_class),
    )


def evaluate_folder(
    model: nn.Module,
    folder: str | Path,
    *,
    split: Split = "test",
    device: str | torch.device = "cpu",
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model that ``daukit.load`` built, with the preprocessing its file carries, on an IDX folder.

    Raises:
        DataError: the folder or its files are wrong, or the model carries no preprocessing.
    """
    return evaluate(model, load_folder(folder, split), preprocessing_of(model), device=device, on_batch=on_batch)


def preprocessing_of(model: nn.Module, source: str = "the model") -> Preprocessing:
    """The preprocessing that a model built by ``daukit.load`` expects; ``DataError`` if its ``source`` names none."""
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise DataError(
            f"{source}: carries no preprocessing, so its input is unknown; save it with daukit.save(preprocessing=...)"
        )
    return record.preprocessing


def class_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Scores (N, classes) of normalised images; a dense prediction (N, classes, H, W) is read at position (0, 0)."""
    dtype = next((p.dtype for p in model.parameters()), inputs.dtype)  # a network of a float64 file computes in float64
    with calling(model, inputs):
        output: Tensor = model(inputs.to(dtype))
    if not isinstance(output, Tensor) or output.dim() not in (2, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DataError(
            f"{name_of(model)}: a classifier's output must be (N, classes) or (N, classes, H, W), got {shape}"
        )
    return output[:, :, 0, 0] if output.dim() == 4 else output


def check_fits(
    model: nn.Module,
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    device: str | torch.device,
    *,
    network: str = "the network",
    images: str = "the images",
) -> None:
    """Raise ``DataError`` unless ``model``, in eval mode, takes the images and has a score for every label.

    Args:
        model: on ``device``.
        dataset: images and labels.
        preprocessing: what the model expects of its input.
        device: where to compute.
        network: what the message calls the model.
        images: what it calls the images.
    """
    given, taken = tuple(dataset.images.shape[1:]), _taken(model, preprocessing)
    misfit = f"{network} takes {_size(taken)}, {images} have {_size(given)}"
    if given[0] != taken[0] or given[0] != len(preprocessing.mean):
        raise DataError(misfit)
    inputs = preprocessing.normalize(dataset.images[:1].to(device))
    try:
        with torch.no_grad():
            scores = class_scores(model, inputs)
    except NetworkError as error:
        assert error.__cause__ is not None
        failed = f"its forward failed on {tuple(inputs.shape)}: {in_one_line(error.__cause__)}"
        raise DataError(f"{network if given == taken else misfit}: {failed}") from error
    if scores.shape[1] < dataset.info.num_classes:
        raise DataError(f"{network} has {scores.shape[1]} classes, {images} have {dataset.info.num_classes}")


def _taken(model: nn.Module, preprocessing: Preprocessing) -> tuple[int, ...]:
    """(channels, height, width) that the network was made for: its factory's options come before its preprocessing."""
    record = record_of(model)
    options = {} if record is None else record.architecture
    channels = option_of(options, "in_channels") or len(preprocessing.mean)
    height, width = option_of(options, "input_size") or preprocessing.input_size
    return channels, height, width


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'' if channels == 1 else 's'} of {height}x{width}"


def _all_scores(
    model: nn.Module,
    images: Tensor,
    preprocessing: Preprocessing,
    device: str | torch.device,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None,
) -> Tensor:
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        parts.append(class_scores(model, preprocessing.normalize(batch.to(device))).float().cpu())
        if on_batch is not None:
            on_batch(start + len(batch), len(images))
    return torch.cat(parts)
