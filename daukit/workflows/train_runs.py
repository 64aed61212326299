"""What a training is, before it begins and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from daukit.datasets import Dataset
from daukit.results import Count, Positive, Share, Size
from daukit.training import RunFiles, TrainingOptions
from daukit.workflows.train_sets import AnyTask


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A training that ended, or that a dry run announces.

    Attributes:
        output: checkpoint written; None in a dry run, as is everything that comes of training.
        bytes: size of the checkpoint.
        log: log written, one line per epoch.
        state: state written, to resume from.
        parameters: parameters of the network.
        images: images to learn from.
        steps: steps per epoch.
        epochs: epochs trained, or to be trained.
        accuracy: accuracy of a classifier on the test images after the last epoch.
        loss: mean loss on the test images after the last epoch: cross-entropy, in nats, or squared error.
        mean_iou: mean intersection over union there, if the network segments.
        psnr: PSNR there in decibels, if it deblurs.
    """

    output: Path | None
    bytes: Count | None
    log: Path | None
    state: Path | None
    parameters: Count
    images: Size
    steps: Size
    epochs: Size
    accuracy: Share | None
    loss: Positive | None
    mean_iou: Share | None = None
    psnr: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training that may begin: the network takes the images, and the files can be written.

    Attributes:
        network: what to train, with a record that has preprocessing.
        called: what messages call it.
        task: what for.
        source: digest of the file that it comes from.
        train_set: images to learn from.
        test_set: images to measure on.
        options: how to train.
        files: what it writes.
        resume_from: state to go on from; None for a new run.
        best: keep the best epoch.
        save_every: keep every epoch that this divides.
        save_state_every: write the state after every so many steps, too.
        overwrite: replace the output.
        device: where to train.
    """

    network: nn.Module
    called: str
    task: AnyTask
    source: str | None
    train_set: Dataset
    test_set: Dataset
    options: TrainingOptions
    files: RunFiles
    resume_from: Path | None
    best: bool
    save_every: int | None
    save_state_every: int | None
    overwrite: bool
    device: str

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self.train_set) // self.options.batch_size)

    @property
    def announcement(self) -> TrainingResult:
        """The result of a dry run."""
        return TrainingResult(
            output=None,
            bytes=None,
            log=None,
            state=None,
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            images=len(self.train_set),
            steps=self.steps,
            epochs=self.options.epochs,
            accuracy=None,
            loss=None,
        )
