"""Evaluate classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.data import ImageDataset, Split, load_folder
from daukit.errors import DataError
from daukit.models import record_of
from daukit.preprocessing import Preprocessing

BATCH_SIZE = 250


@dataclass(frozen=True)
class Evaluation:
    """How a classifier did on a data set.

    Attributes:
        accuracy: share of images whose highest score is their label's (top 1).
        loss: mean cross-entropy, in nats.
        images: number of images.
        class_accuracy: accuracy by label; None for a label without images.
    """

    accuracy: float
    loss: float
    images: int
    class_accuracy: tuple[float | None, ...]


def evaluate(
    model: nn.Module,
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate ``model`` in eval mode; it is left in the mode in which it came.

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
        DataError: the images have other channels than the preprocessing, or a label has no score.
    """
    channels = dataset.images.shape[1]
    if channels != len(preprocessing.mean):
        raise DataError(
            f"the images have {channels} channels, but the model's preprocessing is for {len(preprocessing.mean)}"
        )
    was_training = model.training
    model.to(device).eval()
    try:
        with torch.no_grad():
            scores = _scores(model, dataset.images, preprocessing, device, batch_size, on_batch)
    finally:
        model.train(was_training)
    if scores.shape[1] < dataset.num_classes:
        raise DataError(f"the model has {scores.shape[1]} classes, but the data has {dataset.num_classes}")
    correct = scores.argmax(1) == dataset.labels
    by_class = [correct[dataset.labels == label] for label in range(dataset.num_classes)]
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
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise DataError("the model carries no preprocessing, so nobody knows how to feed it; train or save it with one")
    return evaluate(model, load_folder(folder, split), record.preprocessing, device=device, on_batch=on_batch)


def _scores(
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
        output = model(preprocessing.normalize(batch.to(device)))
        parts.append((output[:, :, 0, 0] if output.dim() == 4 else output).float().cpu())
        if on_batch is not None:
            on_batch(start + len(batch), len(images))
    return torch.cat(parts)
