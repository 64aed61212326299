"""What a network is trained for: how wrong it is, what it predicts, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from daukit.datasets import Batch, Dataset, DatasetInfo

if TYPE_CHECKING:
    from typing_extensions import Self

Reduction = Literal["mean", "sum"]


class Measured(Protocol):
    """Figures of a network on a data set: a frozen dataclass, which has the task's headline too."""

    @property
    def loss(self) -> float:
        """Mean loss over the images."""


Result = TypeVar("Result", bound=Measured, covariant=True)


@dataclass(frozen=True)
class Headline:
    """The figure that networks of a task are compared by. More is better, and it is never negative.

    Attributes:
        name: the attribute of the figures that it is, as ``"accuracy"``.
        maximum: the value that cannot be surpassed.
    """

    name: str
    maximum: float

    def of(self, measured: Measured) -> float:
        """Its value among the figures."""
        value: float = getattr(measured, self.name)
        return value


class Metrics(Protocol[Result]):
    """Sums over the images seen so far, from which figures follow: their size does not grow with the images.

    Instances can be pickled, so that the sums of several processes can be brought together.
    """

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count one batch more: what ``Task.predict`` returned, on any device, and the targets."""

    def merge(self, other: Self) -> None:
        """Count what the metrics of other images of the same data set have counted."""

    def result(self) -> Result:
        """Figures of all that was counted, at least one image."""


class Task(Protocol[Result]):
    """A kind of training with its loss and its figures. It knows how images become the network's input.

    Loss and prediction take the network, not its output: a network may have more to say to a loss than it predicts, as
    SRN-DeblurNet has with its scales. Batches are on the network's device.
    """

    @property
    def headline(self) -> Headline:
        """The figure that networks are compared by."""

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
        """The loss that a training lowers, a scalar: the mean or the sum over the batch's images.

        Raises:
            NetworkError: the network's forward fails.
            DataError: its output is none of this task's.
        """

    def weight(self, batch: Batch) -> float | Tensor:
        """How much a batch counts in the mean loss of several: its images, or those of its pixels that have a class."""

    def guessing_loss(self, info: DatasetInfo) -> float:
        """The mean loss of guessing, at least 1; a training with a thousand times that has diverged."""

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """What the network predicts for images (N, C, H, W) uint8; first axis N. Raises as ``loss`` does."""

    def metrics(self, info: DatasetInfo) -> Metrics[Result]:
        """Metrics of a data set that have counted nothing."""

    def check_fits(
        self,
        model: nn.Module,
        dataset: Dataset,
        device: str | torch.device,
        *,
        network: str = "the network",
        images: str = "the images",
    ) -> None:
        """Raise ``DataError`` unless ``model`` takes the images and can predict their targets.

        Args:
            model: on ``device``, in eval mode.
            dataset: images with targets; its first one is read.
            device: where to compute.
            network: what the message calls the model.
            images: what it calls the images.
        """
