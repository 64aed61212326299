"""Classification: one class per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.datasets import Batch, Dataset, DatasetInfo
from daukit.errors import DataError, NetworkError
from daukit.models import record_of
from daukit.models.factory import option_of
from daukit.models.inputs import told_channels
from daukit.models.usercode import in_one_line, name_of
from daukit.preprocessing import Preprocessing
from daukit.results import Count, Positive, Share
from daukit.tasks.networks import check_classes, output_of
from daukit.tasks.sums import CascadeSum
from daukit.tasks.task import Headline, Reduction

_TOP = 5


@dataclass(frozen=True)
class ClassificationResult:
    """A classifier's accuracy and loss on a data set.

    Attributes:
        accuracy: share of images whose highest score is their label's (top 1).
        loss: mean cross-entropy, in nats.
        images: number of images.
        class_accuracy: accuracy by label; None for a label without images.
        top_5: share of images whose label has one of the five highest scores, where there are six classes or more.
    """

    accuracy: Share
    loss: Positive
    images: Count
    class_accuracy: tuple[Share | None, ...]
    top_5: Share | None = None


class ClassificationMetrics:
    """Images and correct answers by class, and the sum of the losses."""

    def __init__(self, num_classes: int) -> None:
        self._images = torch.zeros(num_classes, dtype=torch.int64)
        self._correct = torch.zeros(num_classes, dtype=torch.int64)
        self._near = 0
        self._loss = CascadeSum()

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: scores (N, classes) and labels (N,)."""
        scores, labels = outputs.float().cpu(), targets.cpu()
        self._images += labels.bincount(minlength=len(self._images))
        self._correct += labels[scores.argmax(1) == labels].bincount(minlength=len(self._correct))
        self._near += int((places_of(labels, scores) < _TOP).sum())
        self._loss.add(F.cross_entropy(scores.double(), labels, reduction="none").tolist())

    def merge(self, other: ClassificationMetrics) -> None:
        """Count what ``other`` has counted."""
        self._images += other._images
        self._correct += other._correct
        self._near += other._near
        self._loss.merge(other._loss)

    def result(self) -> ClassificationResult:
        """Accuracy and loss of all images so far."""
        images, correct = self._images.tolist(), self._correct.tolist()
        return ClassificationResult(
            accuracy=sum(correct) / sum(images),
            loss=self._loss.total / sum(images),
            images=sum(images),
            class_accuracy=tuple(right / n if n else None for right, n in zip(correct, images, strict=True)),
            top_5=self._near / sum(images) if len(images) > _TOP else None,
        )


@dataclass(frozen=True)
class Classification:
    """The task of classifiers. A network that predicts densely, (N, classes, H, W), is read at position (0, 0).

    There a rescaled network's prediction is that of the network it was made from.

    Attributes:
        preprocessing: what the network expects of its input.
    """

    headline: ClassVar[Headline] = Headline("accuracy", 1.0)

    preprocessing: Preprocessing

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy of the scores, in nats."""
        return F.cross_entropy(self.predict(model, batch.images), batch.targets, reduction=reduction)

    def weight(self, batch: Batch) -> float:
        """Its images."""
        return len(batch)

    def guessing_loss(self, info: DatasetInfo) -> float:
        """The cross-entropy of the same score for every class, at least 1."""
        return max(math.log(info.num_classes), 1.0)

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Scores (N, classes)."""
        return class_scores(model, self.preprocessing.normalize(images))

    def metrics(self, info: DatasetInfo) -> ClassificationMetrics:
        """Metrics of a data set that have counted nothing."""
        return ClassificationMetrics(info.num_classes)

    def check_fits(
        self,
        model: nn.Module,
        dataset: Dataset,
        device: str | torch.device,
        *,
        network: str = "the network",
        images: str = "the images",
    ) -> None:
        """Raise ``DataError`` unless ``model`` takes the images and has a score for every label, in their order."""
        first = dataset.batch(slice(1)).images
        given, taken = tuple(first.shape[1:]), _taken(model, self.preprocessing)
        misfit = f"{network} takes {_size(taken)}, {images} have {_size(given)}"
        if given[0] != taken[0] or given[0] != len(self.preprocessing.mean):
            raise DataError(misfit)
        try:
            with torch.no_grad():
                scores = self.predict(model, first.to(device))
        except NetworkError as error:
            assert error.__cause__ is not None
            failed = f"its forward failed on {tuple(first.shape)}: {in_one_line(error.__cause__)}"
            raise DataError(f"{network if given == taken else misfit}: {failed}") from error
        check_classes(scores.shape[1], self.preprocessing, dataset.info, network=network, images=images)


def places_of(labels: Tensor, scores: Tensor) -> Tensor:
    """The place of each label (N,) among the scores (N, classes) of its image, from 0: (N,).

    Of equal scores, the class of the lower number comes first. A score that is no number is the highest, and no place
    is a good one for a label with such a score.
    """
    own = scores.gather(1, labels[:, None])  # (N, 1)
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]  # (N, classes)
    return (~(scores <= own) | (scores == own) & before).sum(1)


def class_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Scores (N, classes) of normalised images; a dense prediction (N, classes, H, W) is read at position (0, 0)."""
    output = output_of(model, inputs)
    if not isinstance(output, Tensor) or output.dim() not in (2, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DataError(
            f"{name_of(model)}: a classifier's output must be (N, classes) or (N, classes, H, W), got {shape}"
        )
    return output[:, :, 0, 0] if output.dim() == 4 else output


def _taken(model: nn.Module, preprocessing: Preprocessing) -> tuple[int, ...]:
    """(channels, height, width) that the network was made for: its factory's options come before its preprocessing."""
    record = record_of(model)
    size = None if record is None else option_of(record.architecture, "input_size")
    return told_channels(model) or len(preprocessing.mean), *(size or preprocessing.input_size)


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'' if channels == 1 else 's'} of {height}x{width}"
