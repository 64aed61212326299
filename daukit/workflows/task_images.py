"""What a checkpoint's network is for, before it is built, and the images of that task."""

from __future__ import annotations

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, TaskName, check_layout
from daukit.errors import in_words_of_caller
from daukit.evaluation import BATCH_SIZE
from daukit.tasks import task_name


def purpose_of(checkpoint: Checkpoint, own: TaskName | None = None) -> TaskName:
    """What a checkpoint's network is for; ``own`` is what one of the user's own is for.

    Raises:
        ValueError: ``own`` is given for a network of daukit's.
    """
    purpose = task_name(checkpoint.header.architecture, own)
    if own is not None and "name" in checkpoint.header.architecture:
        drop = in_words_of_caller("task", "--task")
        raise ValueError(f"{checkpoint.called} says itself that its network is for {purpose}; drop {drop}")
    return purpose


def check_images_of(checkpoint: Checkpoint, layout: Layout | None, task: TaskName | None) -> None:
    """Raise ``ValueError`` if a layout or a task is not that of a checkpoint's network."""
    check_layout(layout, purpose_of(checkpoint, task))


def batch_size_for(images: Dataset) -> int:
    """The number of images at a time: one where they may be of several sizes."""
    return 1 if images.info.sizes_differ else BATCH_SIZE
