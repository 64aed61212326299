"""Networks with what they are for: as evaluate and predict run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import Dataset, DatasetInfo, Layout, Split, TaskName, fitted, open_dataset, open_images
from daukit.evaluation import Tiled
from daukit.preprocessing import Preprocessing
from daukit.tasks import Classification, Deblurring, Segmentation, make_task, preprocessing_of, task_name_of
from daukit.workflows.task_images import purpose_of


@dataclass(frozen=True)
class TaskNetwork:
    """A network with what it is for.

    Attributes:
        called: what messages call its checkpoint.
        file: the checkpoint; None if it is in memory.
        module: on its device, in eval mode; in tiles where they were asked for.
        purpose: its task.
        preprocessing: what it expects of its input.
        parameters: number of its parameters.
    """

    called: str
    file: Path | None
    module: nn.Module
    purpose: TaskName
    preprocessing: Preprocessing
    parameters: int

    def task(self, info: DatasetInfo) -> Classification | Segmentation | Deblurring:
        """Its task on such images."""
        return make_task(self.purpose, self.preprocessing, info)

    def open(self, data: Path, split: Split, layout: Layout | None = None, *, needs_targets: bool = True) -> Dataset:
        """The images of a folder, as the network takes them. Raises as ``open_dataset`` does, or as ``open_images``."""
        opened, order = open_dataset if needs_targets else open_images, self.preprocessing.channel_order
        return fitted(opened(data, split, layout, task=self.purpose, channel_order=order), self.preprocessing)


def task_network(
    checkpoint: Checkpoint,
    *,
    task: TaskName | None = None,
    tile: tuple[int, int] | None = None,
    model: str | None = None,
    device: str = "cpu",
) -> TaskNetwork:
    """Build the network of a checkpoint.

    Args:
        checkpoint: of a network with preprocessing.
        task: what a network of the user's own is for; default: classification. Networks of daukit's say so themselves.
        tile: (height, width) of the parts in which it runs on larger images; default: images are not taken apart.
        model: as in ``daukit.load``.
        device: where to put it.

    Raises:
        ValueError: a task is given for a network of daukit's, or it takes no such tiles.
        CheckpointError: the network cannot be built.
        DataError: the checkpoint carries no preprocessing.
    """
    module = build_model(checkpoint, model=model).to(device).eval()
    called, preprocessing = checkpoint.called, preprocessing_of(module, checkpoint.called)
    purpose_of(checkpoint, task)  # refuses a task of one of daukit's
    purpose = task_name_of(module, task)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if tile is not None:
        if purpose == "classification":
            raise ValueError("a classifier looks at whole images, so it takes no tiles")
        module = Tiled(module, tile, len(preprocessing.mean))
    return TaskNetwork(called, checkpoint.path, module, purpose, preprocessing, parameters)
