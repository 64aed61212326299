"""Measure the accuracy of several networks, such as one before and after a change, on the same images."""

from __future__ import annotations

from pathlib import Path

from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import fitted, open_dataset
from daukit.evaluation import evaluate
from daukit.results import Progress
from daukit.tasks import ClassificationResult, task_of


class Evaluator:
    """Evaluates checkpoints on the test images of one folder, which are read once.

    Args:
        data: folder of images with labels.
        model: as in ``daukit.load``.
        device: where to compute.
        networks: number of checkpoints that will be evaluated, for the share that is reported as done.
        on_progress: called with the share done.

    Raises:
        DataError: the folder or its files are wrong.
    """

    def __init__(
        self,
        data: Path,
        *,
        model: str | None = None,
        device: str = "cpu",
        networks: int = 1,
        on_progress: Progress | None = None,
    ) -> None:
        self._images = open_dataset(data, "test")
        self._model, self._device, self._on_progress = model, device, on_progress
        self._networks, self._done = networks, 0

    def __call__(self, checkpoint: Checkpoint) -> ClassificationResult:
        """Evaluate the network of a checkpoint, with the preprocessing that the checkpoint carries.

        Raises:
            CheckpointError: the network cannot be built.
            DataError: the checkpoint carries no preprocessing, or its network does not take the images.
        """
        network = build_model(checkpoint, model=self._model)
        task = task_of(network, checkpoint.called)
        images = fitted(self._images, task.preprocessing)
        result = evaluate(network, task, images, device=self._device, on_batch=self._report)
        self._done += 1
        return result

    def _report(self, images: int, total: int) -> None:
        if self._on_progress is not None:
            share = (self._done + images / total) / self._networks
            self._on_progress(share, f"accuracy of network {self._done + 1} of {self._networks}")
