"""The task of a network, which follows from its factory."""

from __future__ import annotations

from torch import nn

from daukit.datasets import DatasetInfo, TaskName
from daukit.models import record_of
from daukit.models.factory import option_of
from daukit.models.specs import Architecture
from daukit.preprocessing import Preprocessing
from daukit.tasks.classification import Classification
from daukit.tasks.deblurring import Deblurring
from daukit.tasks.segmentation import Segmentation

_BY_FAMILY: dict[str, TaskName] = {"deeplabv3plus": "segmentation", "srn_deblur": "deblurring"}


def task_name_of(model: nn.Module, own: TaskName | None = None) -> TaskName:
    """What a network that daukit built is for; ``own`` as in ``task_name``."""
    record = record_of(model)
    return task_name({} if record is None else record.architecture, own)


def task_name(architecture: Architecture, own: TaskName | None = None) -> TaskName:
    """What the network of an architecture is for.

    AlexNet and ResNets say so by their option ``task``, DeepLab and SRN-DeblurNet by their name; all others of daukit's
    are classifiers. A user's network is for ``own``, or classifies as well.
    """
    if "name" not in architecture:
        return own or "classification"
    family = str(architecture.get("name", "")).removesuffix("_dau")
    is_segmentation = option_of(architecture, "task") == "segmentation"
    return _BY_FAMILY.get(family, "segmentation" if is_segmentation else "classification")


def make_task(
    name: TaskName, preprocessing: Preprocessing, info: DatasetInfo
) -> Classification | Segmentation | Deblurring:
    """The task called ``name`` of a network that expects such input, on images of a data set."""
    if name == "segmentation":
        return Segmentation(preprocessing, info.ignore_index)
    return Deblurring(preprocessing) if name == "deblurring" else Classification(preprocessing)
