"""Scores of units by the loss on images with labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, Split, TaskName, has_images
from daukit.errors import DataError, in_words_of_caller
from daukit.evaluation.loop import batches
from daukit.models.running import evaluating
from daukit.pruning.rules import MAGNITUDE, RANDOM, Rule
from daukit.pruning.scores import Score, Sizes, magnitude, name_of, sizes_by, taylor
from daukit.results import Progress
from daukit.workflows.task_images import batch_size_for
from daukit.workflows.task_networks import TaskNetwork, task_network

TAYLOR = "taylor"

SYMBOLS = {MAGNITUDE: "|w|", RANDOM: "random number", TAYLOR: "|w dL/dw|"}
"""What tables and figures call the scores."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What units are compared by.

    Attributes:
        score: a name, or a function as in ``daukit.prune``.
        data: folder whose images and labels ``"taylor"`` needs.
        split: its images that count.
        layout: of the folder; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
    """

    score: str | Score = MAGNITUDE
    data: Path | None = None
    split: Split = "train"
    layout: Layout | None = None
    task: TaskName | None = None

    def __post_init__(self) -> None:
        if isinstance(self.score, str) and self.score not in SYMBOLS:
            raise ValueError(f"score must be one of {', '.join(SYMBOLS)}, or a function, got {self.score!r}")
        if self.score == TAYLOR and self.data is None:
            raise ValueError('score="taylor" needs data, a folder of images with labels')

    @property
    def name(self) -> str:
        """Its name in results and in a file's history."""
        return self.score if isinstance(self.score, str) else name_of(self.score)

    def sizes(
        self,
        checkpoint: Checkpoint,
        *,
        model: str | None = None,
        device: str = "cpu",
        on_progress: Progress | None = None,
    ) -> Sizes:
        """The scores of a checkpoint's units; ``score="random"`` is drawn where units are chosen.

        Raises:
            TypeError: a function returned something else than a tensor.
            ValueError: a function returned scores of another shape than the weights, negative or not finite.
            CheckpointError: the network cannot be built.
            DataError: the folder or its files are wrong, or they and the network do not fit.
        """
        if self.score == TAYLOR:
            assert self.data is not None
            found = taylor_scores(
                checkpoint, self.data, split=self.split, layout=self.layout, task=self.task, model=model, device=device,
                on_progress=on_progress,
            )  # fmt: skip
            return sizes_by(checkpoint, found)
        return magnitude if isinstance(self.score, str) else sizes_by(checkpoint, self.score, model)


def scoring_of(
    rule: Rule | None,
    score: Score | None,
    data: Path | None,
    split: Split,
    layout: Layout | None = None,
    task: TaskName | None = None,
) -> Scoring:
    """What a rule compares units by: the score that it names, or a function in its place.

    Raises:
        ValueError: the rule names no score, or one that needs images and there are none.
    """
    chosen = score or (MAGNITUDE if rule is None else rule.score)
    return Scoring(score=chosen, data=data, split=split, layout=layout, task=task)


def taylor_scores(
    checkpoint: Checkpoint,
    data: Path,
    *,
    split: Split = "train",
    layout: Layout | None = None,
    task: TaskName | None = None,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Score units by ``|w dL/dw|``, summed over batches, where L is the sum of the task's losses over a batch.

    Batches have 250 images, or one where images may be of several sizes. The network is in eval mode, and reads the
    images as ``evaluate`` does.

    Args:
        checkpoint: the network.
        data: folder of images with labels, masks or sharp pictures.
        split: the images to take; figures on images that chose the units are a little too good.
        layout: of the folder; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        model: as in ``daukit.load``.
        device: where to compute.
        on_progress: told of progress.

    Returns:
        By name of each DAU layer, a tensor shaped like its weight.

    Raises:
        ValueError: ``layout`` is of another task.
        CheckpointError: the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
    """
    network = task_network(checkpoint, task=task, model=model, device=device)
    images = open_part(network, data, split, layout)
    own = network.task(images.info)
    named = {"network": f"{checkpoint.called}'s network", "images": f"the images of {data}"}
    own.check_fits(network.module, images, device, **named)

    def losses() -> Iterator[Tensor]:
        total = len(images)
        for done, batch in batches(images, batch_size_for(images), device):
            yield own.loss(network.module, batch, reduction="sum")
            if on_progress is not None:
                on_progress(done / total, f"scores by {done:,} of {total:,} images")

    with evaluating(network.module):
        return taylor(network.module, losses())


def open_part(
    network: TaskNetwork, data: Path, split: Split, layout: Layout | None, *, needs_targets: bool = True
) -> Dataset:
    """Open images for a network; where there are only test images, say how to take those.

    Raises:
        ValueError: ``layout`` is of another task.
        DataError: the folder or its files are wrong.
    """
    try:
        return network.open(data, split, layout, needs_targets=needs_targets)
    except DataError as error:
        how = in_words_of_caller('split="test"', "--split test")
        if split == "train" and "there is no train-" in str(error):
            hint = f"{how} takes its t10k-* files, and accuracies on them are then a little too good"
        elif split == "train" and _has_only_test_images(network, data, layout):
            hint = f"{how} takes its test images, and figures on them are then a little too good"
        else:
            raise
        raise DataError(f"{error}; {hint}") from None


def _has_only_test_images(network: TaskNetwork, data: Path, layout: Layout | None) -> bool:
    try:
        found = partial(has_images, data, layout=layout, task=network.purpose)
        return found(split="test") and not found(split="train")
    except DataError:  # the one that the caller is about to raise
        return False
