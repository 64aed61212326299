"""Evaluate a checkpoint on a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import Layout, Split, fitted, open_dataset
from daukit.evaluation import evaluate
from daukit.results import Progress, result_of
from daukit.tasks import ClassificationResult, task_name_of, task_of
from daukit.workflows.evaluate_pixels import DeblurringEvaluation, SegmentationEvaluation, evaluate_pixels


@dataclass(frozen=True, kw_only=True)
class FileEvaluation(ClassificationResult):
    """A classifier's accuracy.

    Attributes:
        file: the checkpoint.
        data: folder of the images.
        split: part of the data set.
    """

    file: Path | None
    data: Path
    split: Split


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: Path,
    *,
    split: Split = "test",
    layout: Layout | None = None,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> FileEvaluation | SegmentationEvaluation | DeblurringEvaluation:
    """Measure a network at what it is for, with the preprocessing that its checkpoint carries.

    Args:
        checkpoint: a classifier, or a network of daukit's for segmentation or deblurring.
        data: folder of images with labels; of pictures with masks, or blurred and sharp ones, for the other tasks.
        split: the images to take.
        layout: of the folder; default: found as by ``open_dataset``.
        model: as in ``daukit.load``.
        device: where to compute.
        on_progress: called with the share done.

    Raises:
        ValueError: ``layout`` is of another task.
        CheckpointError: the network cannot be built.
        DataError: the folder or its files are wrong, the checkpoint carries no preprocessing, or the two do not fit.
    """
    network = build_model(checkpoint, model=model).to(device)
    if task_name_of(network) != "classification":
        return evaluate_pixels(
            network, data, split=split, layout=layout, file=checkpoint.path, called=checkpoint.called, device=device,
            on_progress=on_progress,
        )  # fmt: skip
    dataset, task = open_dataset(data, split, layout), task_of(network, checkpoint.called)
    images = fitted(dataset, task.preprocessing)
    names = {"network": f"{checkpoint.called}'s network", "images": f"the images of {data}"}
    task.check_fits(network, images, device, **names)

    def on_batch(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(done / total, f"{done:,} of {total:,} images")

    result = evaluate(network, task, images, device=device, on_batch=on_batch)
    return result_of(FileEvaluation, result, file=checkpoint.path, data=data, split=split)
