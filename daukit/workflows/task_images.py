"""What a checkpoint's network is for, before it is built, and the images of that task."""

from __future__ import annotations

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, TaskName, check_layout
from daukit.evaluation import BATCH_SIZE
from daukit.tasks import task_name


def purpose_of(checkpoint: Checkpoint) -> TaskName:
    """What a checkpoint's network is for."""
    return task_name(checkpoint.header.architecture)


def check_layout_of(checkpoint: Checkpoint, layout: Layout | None) -> None:
    """Raise ``ValueError`` if a layout is of another task than a checkpoint's network."""
    check_layout(layout, purpose_of(checkpoint))


def batch_size_for(images: Dataset) -> int:
    """The number of images at a time: one where they may be of several sizes."""
    return 1 if images.info.sizes_differ else BATCH_SIZE
