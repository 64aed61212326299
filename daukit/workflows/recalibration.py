"""Re-estimate the statistics of batch norms from images without labels, as after pruning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, Split, TaskName
from daukit.errors import CheckpointError, DataError, in_words_of_caller
from daukit.evaluation.loop import batches
from daukit.models.running import evaluating
from daukit.results import Progress
from daukit.workflows.scores import open_part
from daukit.workflows.task_images import batch_size_for
from daukit.workflows.task_networks import task_network


class Recalibrator:
    """Recalibrates checkpoints of one task on the images of a folder, which the first of them opens.

    Args:
        data: folder of images; classifiers need no labels.
        split: its images that count.
        layout: of the folder; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        model: as in ``daukit.load``.
        device: where to compute.
        on_progress: told of progress.

    Attributes:
        images: number of these images; None before there was a checkpoint.
    """

    def __init__(
        self,
        data: Path,
        *,
        split: Split = "train",
        layout: Layout | None = None,
        task: TaskName | None = None,
        model: str | None = None,
        device: str = "cpu",
        on_progress: Progress | None = None,
    ) -> None:
        self.images: int | None = None
        self._opened: Dataset | None = None
        self._data, self._split, self._layout, self._task = data, split, layout, task
        self._model, self._device, self._on_progress = model, device, on_progress

    def __call__(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint with the statistics of its batch norms taken anew; all other tensors are the same.

        Raises:
            ValueError: ``layout`` or ``task`` is not the network's.
            CheckpointError: the network cannot be built, or has no batch norm with statistics.
            DataError: the folder or its images are wrong, the checkpoint carries no preprocessing, or its network does
                not take the images.
        """
        network = task_network(checkpoint, task=self._task, model=self._model, device=self._device)
        norms = batch_norms(network.module)
        if not norms:
            how = in_words_of_caller("recalibrate", "--recalibrate")
            raise CheckpointError(f"{checkpoint.called}: no batch norm of its network keeps statistics; drop {how}")
        if self._opened is None:
            self._opened = open_part(network, self._data, self._split, self._layout, needs_targets=False)
            self.images = len(self._opened)
        images, channels = self._opened, len(network.preprocessing.mean)
        given = images.batch(slice(1)).images.shape[1]
        if given != channels:
            raise DataError(
                f"{checkpoint.called}'s network takes {channels} channels, the images of {self._data} have {given}"
            )
        task = network.task(images.info)
        recalibrate(network.module, (task.predict(network.module, pixels) for pixels in self._batches(images)))
        tensors = dict(checkpoint.tensors)
        for name, norm in norms.items():
            for key, value in norm.named_buffers(prefix=name, recurse=False):
                tensors[key] = value.cpu().to(tensors[key].dtype)
        arguments = {"images": self.images, "split": self._split}
        return replace(checkpoint.derive("recalibrate", arguments), tensors=tensors, path=checkpoint.path)

    def _batches(self, images: Dataset) -> Iterable[Tensor]:
        total = len(images)
        for done, batch in batches(images, batch_size_for(images), self._device):
            yield batch.images
            if self._on_progress is not None:
                self._on_progress(done / total, f"statistics of {done:,} of {total:,} images")


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a network that keep statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


@torch.no_grad()
def recalibrate(network: nn.Module, predictions: Iterable[object]) -> None:
    """Take the statistics of a network's batch norms anew: the mean over batches of each batch's mean and variance.

    Only batch norms are in training mode meanwhile, and nothing but their statistics changes. As in
    ``torch.optim.swa_utils.update_bn``, each batch counts alike, and what a layer reads was normalised by the batch.

    Args:
        network: changed in place.
        predictions: one after another, each computed by ``network`` from a batch when it is asked for.
    """
    norms = batch_norms(network).values()
    momenta = {norm: norm.momentum for norm in norms}
    with evaluating(network):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for _ in predictions:
                pass
        finally:
            for norm, momentum in momenta.items():
                norm.momentum = momentum
