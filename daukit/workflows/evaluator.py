"""Measure several networks, such as one before and after a change, on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, TaskName
from daukit.evaluation import evaluate
from daukit.results import Progress
from daukit.tasks import ClassificationResult, DeblurringResult, SegmentationResult, Task
from daukit.workflows.headlines import HEADLINES
from daukit.workflows.task_networks import task_network

AnyResult = ClassificationResult | SegmentationResult | DeblurringResult


class Evaluator:
    """Measures checkpoints of one kind of network on the test images of a folder, which the first of them opens.

    Args:
        data: folder of images with labels, masks or sharp pictures.
        layout: of the folder; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        model: as in ``daukit.load``.
        device: where to compute.
        networks: number of checkpoints that will be measured, for the share that is reported as done.
        on_progress: called with the share done.
    """

    def __init__(
        self,
        data: Path,
        *,
        layout: Layout | None = None,
        task: TaskName | None = None,
        model: str | None = None,
        device: str = "cpu",
        networks: int = 1,
        on_progress: Progress | None = None,
    ) -> None:
        self._data, self._layout, self._task = data, layout, task
        self._images: Dataset | None = None
        self._model, self._device, self._on_progress = model, device, on_progress
        self._networks, self._done = networks, 0

    def __call__(self, checkpoint: Checkpoint) -> AnyResult:
        """Measure the network of a checkpoint at what it is for, with the preprocessing that the checkpoint carries.

        Raises:
            ValueError: ``layout`` or ``task`` is not the network's.
            CheckpointError: the network cannot be built.
            DataError: the folder or its files are wrong, the checkpoint carries no preprocessing, or the two do not
                fit.
        """
        network = task_network(checkpoint, task=self._task, model=self._model, device=self._device)
        images = self._images = self._images or network.open(self._data, "test", self._layout)
        task: Task[Any] = network.task(images.info)
        title = HEADLINES[task.headline.name].title

        def on_batch(done: int, total: int) -> None:
            if self._on_progress is not None:
                share = (self._done + done / total) / self._networks
                self._on_progress(share, f"{title} of network {self._done + 1} of {self._networks}")

        result: AnyResult = evaluate(network.module, task, images, device=self._device, on_batch=on_batch)
        self._done += 1
        return result
