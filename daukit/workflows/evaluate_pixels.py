"""Evaluate a network that says something of every pixel: its class, or how it looks when sharp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from daukit.datasets import Dataset, Layout, Split, open_dataset
from daukit.evaluation import evaluate
from daukit.results import Count, Progress, result_of
from daukit.tasks import (
    Deblurring,
    DeblurringResult,
    Segmentation,
    SegmentationResult,
    preprocessing_of,
    task_name_of,
)
from daukit.tasks.task import Result, Task


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(SegmentationResult):
    """How well a network tells the class of every pixel.

    Attributes:
        class_names: names of the classes.
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
    """

    class_names: tuple[str, ...]
    file: Path | None
    data: Path
    split: Split


@dataclass(frozen=True, kw_only=True)
class DeblurringEvaluation(DeblurringResult):
    """How near a network's images are to the sharp ones.

    Attributes:
        parameters: parameters of the network.
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
    """

    parameters: Count
    file: Path | None
    data: Path
    split: Split


def evaluate_pixels(
    network: nn.Module,
    data: Path,
    *,
    split: Split,
    layout: Layout | None = None,
    file: Path | None,
    called: str,
    device: str,
    on_progress: Progress | None = None,
) -> SegmentationEvaluation | DeblurringEvaluation:
    """Measure a network for segmentation or deblurring, one image at a time, as they may be of different sizes.

    Args:
        network: with a record that has preprocessing.
        data: folder of pictures with targets of the network's task.
        split: the images to take.
        layout: of the folder; default: found as by ``open_dataset``.
        file: where the network comes from.
        called: what messages call it.
        device: where to compute.
        on_progress: called with the share done.

    Raises:
        ValueError: ``layout`` is of another task.
        DataError: the folder or its files are wrong, the network has no preprocessing, or the two do not fit.
    """
    preprocessing = preprocessing_of(network, called)
    about: dict[str, Any] = {"file": file, "data": data, "split": split}

    def measured(task: Task[Result], images: Dataset) -> Result:
        names = {"network": f"{called}'s network", "images": f"the images of {data}"}
        task.check_fits(network.to(device).eval(), images, device, **names)
        return evaluate(network, task, images, device=device, on_batch=on_batch)

    def on_batch(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(done / total, f"{done:,} of {total:,} images")

    purpose = task_name_of(network)
    pairs = open_dataset(data, split, layout, task=purpose, channel_order=preprocessing.channel_order)
    if purpose == "deblurring":
        parameters = sum(parameter.numel() for parameter in network.parameters())
        sharpness = measured(Deblurring(preprocessing), pairs)
        return result_of(DeblurringEvaluation, sharpness, parameters=parameters, **about)
    classes = measured(Segmentation(preprocessing, pairs.info.ignore_index), pairs)
    return result_of(SegmentationEvaluation, classes, class_names=pairs.info.class_names, **about)
