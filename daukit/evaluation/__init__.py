"""Evaluate networks on data sets."""

from __future__ import annotations

from daukit.evaluation.folder import evaluate_folder
from daukit.evaluation.gridding import measure_gridding
from daukit.evaluation.loop import BATCH_SIZE, evaluate
from daukit.evaluation.tiles import Tiled

__all__ = ["BATCH_SIZE", "Tiled", "evaluate", "evaluate_folder", "measure_gridding"]
