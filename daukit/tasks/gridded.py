"""Segmentation with gridding: figures of the scores that a network makes, before they are resized to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from daukit.datasets import DatasetInfo
from daukit.errors import DataError
from daukit.models.blocks import upsample_to
from daukit.models.usercode import name_of
from daukit.tasks.gridding import MAX_PERIOD, GridEnergy
from daukit.tasks.networks import output_of
from daukit.tasks.segmentation import Segmentation, SegmentationMetrics, SegmentationResult


@dataclass(frozen=True)
class GriddedSegmentation(Segmentation):
    """``Segmentation`` that measures gridding as well. It predicts scores where the network makes them.

    Attributes:
        periods: of the grids, in pixels of the score maps, each from 2 to ``MAX_PERIOD``.
    """

    periods: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the periods."""
        if not all(2 <= period <= MAX_PERIOD for period in self.periods):
            raise ValueError(f"periods of grids must be within [2, {MAX_PERIOD}], got {list(self.periods)}")

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Scores (N, classes, h, w) before they are resized to the images.

        Raises:
            NetworkError: the network's forward fails.
            DataError: it gives no such scores, or does not tell them from scores of all pixels.
        """
        inputs = self.preprocessing.normalize(images)
        method = getattr(model, "scores", None)
        if callable(method) and not isinstance(method, nn.Module):
            return self._checked(model, output_of(model, inputs, method))
        scores = self._checked(model, output_of(model, inputs))
        if scores.shape[2:] == images.shape[2:]:
            raise DataError(
                f"{name_of(model)}: scores every pixel, and gridding is measured before scores are resized to the "
                "image; give the network a method scores(images) that returns them"
            )
        return scores

    def metrics(self, info: DatasetInfo) -> GriddedMetrics:
        """Metrics of a data set that have counted nothing."""
        return GriddedMetrics(info, self.periods)


class GriddedMetrics(SegmentationMetrics):
    """``SegmentationMetrics`` of scores that are still to be resized, and energies of these scores."""

    def __init__(self, info: DatasetInfo, periods: Sequence[int]) -> None:
        super().__init__(info)
        self._grids = [GridEnergy(period) for period in periods]

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: scores (N, classes, h, w) and the class of each pixel, (N, H, W)."""
        for grid in self._grids:
            grid.add(outputs)
        super().add(upsample_to(outputs, targets), targets)

    def merge(self, other: SegmentationMetrics) -> None:
        """Count what ``other`` has counted."""
        super().merge(other)
        assert isinstance(other, GriddedMetrics)
        for grid, more in zip(self._grids, other._grids, strict=True):
            grid.merge(more)

    def result(self) -> SegmentationResult:
        """Figures of all images so far. Raises as those of ``SegmentationMetrics`` do, and as ``GridEnergy.result``."""
        return replace(super().result(), gridding=tuple(grid.result() for grid in self._grids))
