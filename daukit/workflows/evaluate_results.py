"""Figures of a network on a folder of images, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daukit.datasets import Split
from daukit.results import Count
from daukit.tasks import ClassificationResult, DeblurringResult, Gridding, SegmentationResult
from daukit.texts import csv_text


@dataclass(frozen=True, kw_only=True)
class FileEvaluation(ClassificationResult):
    """A classifier's accuracy.

    Attributes:
        class_names: names of the classes; none where they have none.
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
        csv: file of the figures, if one was written.
        pictures: file of the pictures, if one was drawn.
    """

    class_names: tuple[str, ...] = ()
    file: Path | None
    data: Path
    split: Split
    csv: Path | None = None
    pictures: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(SegmentationResult):
    """How well a network tells the class of every pixel.

    Attributes:
        class_names: names of the classes.
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
        csv: file of the figures, if one was written.
        pictures: file of the pictures, if one was drawn.
        gridding: how much of the score maps repeats with grids, where it was asked for.
    """

    class_names: tuple[str, ...]
    file: Path | None
    data: Path
    split: Split
    csv: Path | None = None
    pictures: Path | None = None
    gridding: tuple[Gridding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeblurringEvaluation(DeblurringResult):
    """How near a network's images are to the sharp ones.

    Attributes:
        parameters: parameters of the network.
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
        csv: file of the figures, if one was written.
        pictures: file of the pictures, if one was drawn.
    """

    parameters: Count
    file: Path | None
    data: Path
    split: Split
    csv: Path | None = None
    pictures: Path | None = None


Evaluation = FileEvaluation | SegmentationEvaluation | DeblurringEvaluation


def csv_of(result: Evaluation) -> str:
    """The figures with all their digits, shares within [0, 1]: a row per class, and rows without a class for the rest.

    Of a network that deblurs, it is one row.
    """
    if isinstance(result, DeblurringEvaluation):
        columns = ("psnr", "ssim", "loss", "parameters", "images")
        return csv_text(columns, [[getattr(result, column) for column in columns]])
    names = [
        result.class_names[i] if i < len(result.class_names) else str(i) for i in range(len(result.class_accuracy))
    ]
    if isinstance(result, FileEvaluation):
        rows = [[i, name, share] for i, (name, share) in enumerate(zip(names, result.class_accuracy, strict=True))]
        rows.append([None, "all images", result.accuracy])
        rows += [] if result.top_5 is None else [[None, "all images, top 5", result.top_5]]
        return csv_text(("class", "name", "accuracy"), rows)
    figures = zip(names, result.class_iou, result.class_accuracy, strict=True)
    table = [[i, name, iou, accuracy] for i, (name, iou, accuracy) in enumerate(figures)]
    table.append([None, "mean", result.mean_iou, result.mean_accuracy])
    if not result.gridding:
        return csv_text(("class", "name", "iou", "accuracy"), table)
    grids = [[None, f"gridding {grid.period}", None, None, grid.share] for grid in result.gridding]
    return csv_text(("class", "name", "iou", "accuracy", "share"), [*([*row, None] for row in table), *grids])
