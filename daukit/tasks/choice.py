"""The task of a network, which follows from its factory."""

from __future__ import annotations

from typing import Literal

from torch import nn

from daukit.models import record_of
from daukit.models.factory import option_of

TaskName = Literal["classification", "segmentation", "deblurring"]

_BY_FAMILY: dict[str, TaskName] = {"deeplabv3plus": "segmentation", "srn_deblur": "deblurring"}


def task_name_of(model: nn.Module) -> TaskName:
    """What a network that daukit built is for: classification, unless it is one of daukit's own for another task.

    AlexNet and ResNets say so by their option ``task``, DeepLab and SRN-DeblurNet by their name.
    """
    record = record_of(model)
    architecture = {} if record is None else record.architecture
    family = str(architecture.get("name", "")).removesuffix("_dau")
    is_segmentation = option_of(architecture, "task") == "segmentation" and "name" in architecture
    return _BY_FAMILY.get(family, "segmentation" if is_segmentation else "classification")
