"""Segmentation: one class per pixel (sections 4.3 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.datasets import Batch, Dataset, DatasetInfo
from daukit.errors import DataError
from daukit.models.blocks import upsample_to
from daukit.models.usercode import name_of
from daukit.preprocessing import Preprocessing
from daukit.results import Count, Positive, Share
from daukit.tasks.networks import check_classes, output_of, sample_of
from daukit.tasks.sums import CascadeSum
from daukit.tasks.task import Headline, Reduction


@dataclass(frozen=True)
class SegmentationResult:
    """How well a network tells the class of every pixel of a data set.

    Pixels without a class are not counted.

    Attributes:
        mean_iou: mean of ``class_iou`` over the classes that have one.
        pixel_accuracy: share of pixels whose highest score is their class's.
        mean_accuracy: mean of ``class_accuracy`` over the classes that have one.
        loss: mean cross-entropy over the pixels, in nats.
        images: number of images.
        class_iou: by class, intersection over union of the pixels that are of it and those that are said to be; None
            for a class without either.
        class_accuracy: by class, share of its pixels that are said to be of it; None for a class without pixels.
    """

    mean_iou: Share
    pixel_accuracy: Share
    mean_accuracy: Share
    loss: Positive
    images: Count
    class_iou: tuple[Share | None, ...]
    class_accuracy: tuple[Share | None, ...]


class SegmentationMetrics:
    """Pixels by their class and the predicted one, a confusion matrix of whole numbers, and the sum of the losses."""

    def __init__(self, info: DatasetInfo) -> None:
        self._classes, self._ignored = info.num_classes, info.ignore_index
        # The last column is for what a network predicts beyond the classes of the data set.
        self._pixels = torch.zeros(info.num_classes, info.num_classes + 1, dtype=torch.int64)
        self._loss, self._images = CascadeSum(), 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: scores (N, classes, H, W) and the class of each pixel, (N, H, W)."""
        losses = _pixel_losses(outputs.float(), targets, self._ignored)
        self._loss.add(losses.double().sum((1, 2)).tolist())
        self._images += len(targets)
        valid = targets != self._ignored
        predicted = outputs.argmax(1)[valid].clamp(max=self._classes)
        cells = targets[valid].long() * (self._classes + 1) + predicted
        self._pixels += cells.bincount(minlength=self._pixels.numel()).reshape(self._pixels.shape).cpu()

    def merge(self, other: SegmentationMetrics) -> None:
        """Count what ``other`` has counted."""
        self._pixels += other._pixels
        self._loss.merge(other._loss)
        self._images += other._images

    def result(self) -> SegmentationResult:
        """Figures of all images so far.

        Raises:
            DataError: none of their pixels has a class.
        """
        right = self._pixels.diagonal().tolist()
        here, said = self._pixels.sum(1).tolist(), self._pixels.sum(0)[: self._classes].tolist()
        if not sum(here):
            raise DataError("no pixel of the images has a class, so there is nothing to measure; are these the masks?")
        iou = [_share(r, h + s - r) for r, h, s in zip(right, here, said, strict=True)]
        if self._ignored < self._classes:
            iou[self._ignored] = None
        accuracy = [_share(r, h) for r, h in zip(right, here, strict=True)]
        return SegmentationResult(
            mean_iou=_mean(iou),
            pixel_accuracy=sum(right) / sum(here),
            mean_accuracy=_mean(accuracy),
            loss=self._loss.total / sum(here),
            images=self._images,
            class_iou=tuple(iou),
            class_accuracy=tuple(accuracy),
        )


@dataclass(frozen=True)
class Segmentation:
    """The task of networks that give every pixel a class.

    A network may score fewer positions than the image has pixels, as AlexNet at every eighth pixel would: its scores
    are resized to the image bilinearly, for the loss and for the prediction. Section 4.3 says so ("bi-linear
    up-sampling [...] to obtain pixel-wise mask"); labels are never reduced instead, which would lose thin objects.

    Attributes:
        preprocessing: what the network expects of its input.
        ignore_index: target of pixels without a class, that of the data set.
    """

    headline: ClassVar[Headline] = Headline("mean_iou", 1.0)

    preprocessing: Preprocessing
    ignore_index: int = 255

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
        """Mean cross-entropy over all pixels of the batch that have a class, in nats; 0 if none has one.

        Section 4.3 asks for a "normalized per-pixel softmax loss" on valid pixels: each of them counts the same, in
        whichever image it is. The sum over images is this mean times their number.
        """
        losses = _pixel_losses(self.predict(model, batch.images), batch.targets, self.ignore_index)
        mean = losses.sum() / (batch.targets != self.ignore_index).sum().clamp(min=1)
        return mean * len(batch) if reduction == "sum" else mean

    def weight(self, batch: Batch) -> Tensor:
        """Its pixels that have a class."""
        return (batch.targets != self.ignore_index).sum()

    def guessing_loss(self, info: DatasetInfo) -> float:
        """The cross-entropy of the same score for every class, at least 1."""
        return max(math.log(info.num_classes), 1.0)

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Scores (N, classes, H, W) at every pixel."""
        scores = self._checked(model, output_of(model, self.preprocessing.normalize(images)))
        return scores if scores.shape[2:] == images.shape[2:] else upsample_to(scores, images)

    def score_maps(self, model: nn.Module, images: Tensor) -> Tensor:
        """Scores (N, classes, h, w) where the network makes them, before they are resized to the images.

        Raises:
            NetworkError: the network's forward fails.
            DataError: it gives no scores, or does not tell them from scores of all pixels.
        """
        inputs = self.preprocessing.normalize(images)
        method = getattr(model, "scores", None)
        if callable(method) and not isinstance(method, nn.Module):
            return self._checked(model, output_of(model, inputs, method))
        scores = self._checked(model, output_of(model, inputs))
        if scores.shape[2:] == images.shape[2:]:
            raise DataError(
                f"{name_of(model)}: scores every pixel, and gridding is measured before scores are resized to the "
                "image; give the network a method scores(images) that returns them"
            )
        return scores

    def _checked(self, model: nn.Module, scores: object) -> Tensor:
        """The output of a network, if it is what one of this task gives."""
        if not isinstance(scores, Tensor) or scores.dim() != 4:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise DataError(f"{name_of(model)}: segmentation needs scores (N, classes, height, width), got {shape}")
        return scores

    def metrics(self, info: DatasetInfo) -> SegmentationMetrics:
        """Metrics of a data set that have counted nothing."""
        return SegmentationMetrics(info)

    def check_fits(
        self,
        model: nn.Module,
        dataset: Dataset,
        device: str | torch.device,
        *,
        network: str = "the network",
        images: str = "the images",
    ) -> None:
        """Raise ``DataError`` unless ``model`` takes the images and scores every class of their pixels."""
        sample = sample_of(dataset, model, self.preprocessing, network=network, images=images)
        with torch.no_grad():
            scores = self.predict(model, sample.to(device))
        check_classes(scores.shape[1], self.preprocessing, dataset.info, network=network, images=images)


def _pixel_losses(scores: Tensor, targets: Tensor, ignored: int) -> Tensor:
    """Cross-entropy of every pixel, (N, H, W); 0 where it is ignored."""
    return F.cross_entropy(scores, targets.long(), ignore_index=ignored, reduction="none")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(shares: list[float | None]) -> float:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known)
