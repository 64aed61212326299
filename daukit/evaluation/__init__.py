"""Evaluate networks on data sets."""

from __future__ import annotations

from daukit.evaluation.folder import evaluate_folder
from daukit.evaluation.loop import BATCH_SIZE, evaluate

__all__ = ["BATCH_SIZE", "evaluate", "evaluate_folder"]
