"""What a training is, before it begins and when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from daukit.datasets import Dataset
from daukit.models.structure import dau_layers
from daukit.results import Count, Positive, Share, Size
from daukit.training import Recipe, RunFiles, TrainingOptions, displacement_rates
from daukit.transforms import Cropped, ScaleAndCrop
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
        recipe: name of the recipe, if it was given one.
        settings: the recipe as it was followed, with all that replaced values of its file.
        mu_lr: learning rate of each layer's displacements at the start, by the layer's name, where they learn: by Adam
            in pixels a step.
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
    recipe: str | None = None
    settings: dict[str, Any] | None = None
    mu_lr: dict[str, Positive] | None = None


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a training keeps on its way, and what is there already.

    Attributes:
        best: keep the epoch with the best test score.
        save_every: keep every epoch that this divides.
        save_state_every: write the state after every so many steps, too.
        resume: go on with a run that was stopped.
        overwrite: replace the files that exist.
    """

    best: bool = False
    save_every: int | None = None
    save_state_every: int | None = None
    resume: bool = False
    overwrite: bool = False


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
        recipe: what to train, and how.
        files: what it writes.
        resume_from: state to go on from; None for a new run.
        keeping: what it keeps on the way.
        device: where to train.
        new: layers that begin anew, if others are those of another network.
        left: layers of that network which found no place.
        scaled: factors of the layers of that network whose displacements were multiplied, by name.
        notes: what else a person should know of that, a sentence each.
    """

    network: nn.Module
    called: str
    task: AnyTask
    source: str | None
    train_set: Dataset
    test_set: Dataset
    recipe: Recipe
    files: RunFiles
    resume_from: Path | None
    keeping: Keeping
    device: str
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    scaled: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def options(self) -> TrainingOptions:
        """How to train."""
        return self.recipe.options

    @property
    def has_displacements(self) -> bool:
        """True if rates of displacements mean something to the network."""
        return bool(dau_layers(self.network))

    @property
    def history(self) -> dict[str, Any]:
        """What the history of the network gets beside the options: the recipe, crops and new layers."""
        crop = self.train_set.crop if isinstance(self.train_set, Cropped) else None
        told: Mapping[str, Any] = {
            "recipe": self.recipe.name,
            "crop": None if crop is None else list(crop.size),
            "scale": list(crop.scale) if isinstance(crop, ScaleAndCrop) and crop.scale != (1.0, 1.0) else None,
            "new_layers": list(self.new) or None,
        }
        return {key: value for key, value in told.items() if value is not None}

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self.train_set) // self.options.batch_size)

    @property
    def mu_lr(self) -> dict[str, float]:
        """Learning rate of each layer's displacements at the start, by the layer's name, where they learn."""
        return displacement_rates(self.network, self.options, self.steps)

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
            recipe=self.recipe.name,
            settings=None if self.recipe.name is None else self.recipe.tables(),
            mu_lr=self.mu_lr or None,
        )
