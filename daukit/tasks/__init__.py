"""Tasks: what networks are trained for and measured by."""

from __future__ import annotations

from torch import nn

from daukit.datasets import TaskName
from daukit.errors import DataError
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.tasks.choice import make_task, task_name, task_name_of
from daukit.tasks.classification import Classification, ClassificationResult
from daukit.tasks.deblurring import Deblurring, DeblurringResult
from daukit.tasks.gridding import Gridding, GridEnergy
from daukit.tasks.segmentation import Segmentation, SegmentationResult
from daukit.tasks.task import Headline, Metrics, Task

__all__ = [
    "Classification",
    "ClassificationResult",
    "Deblurring",
    "DeblurringResult",
    "GridEnergy",
    "Gridding",
    "Headline",
    "Metrics",
    "Segmentation",
    "SegmentationResult",
    "Task",
    "TaskName",
    "make_task",
    "preprocessing_of",
    "task_name",
    "task_name_of",
    "task_of",
]


def task_of(model: nn.Module, source: str = "the model") -> Classification:
    """The task of a classifier whose record has preprocessing. Raises as ``preprocessing_of`` does."""
    return Classification(preprocessing_of(model, source))


def preprocessing_of(model: nn.Module, source: str = "the model") -> Preprocessing:
    """The preprocessing in a model's record, such as one that ``daukit.load`` built.

    Raises:
        DataError: its record has none; ``source`` is what the message calls the model.
    """
    record = record_of(model)
    if record is None or record.preprocessing is None:
        raise DataError(
            f"{source}: carries no preprocessing, so its input is unknown; save it with daukit.save(preprocessing=...)"
        )
    return record.preprocessing
