"""Evaluate a network on a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from daukit.datasets import Layout, Split, fitted, open_dataset
from daukit.evaluation.loop import evaluate
from daukit.tasks import ClassificationResult, task_of


def evaluate_folder(
    model: nn.Module,
    folder: str | Path,
    *,
    split: Split = "test",
    layout: Layout | None = None,
    device: str | torch.device = "cpu",
    on_batch: Callable[[int, int], None] | None = None,
) -> ClassificationResult:
    """Evaluate a model that ``daukit.load`` built, with the preprocessing its file carries, on a folder.

    The layout of the folder is found as by ``daukit.datasets.open_dataset``, unless ``layout`` names it.

    Raises:
        DataError: the folder or its files are wrong, or the model carries no preprocessing.
    """
    dataset, task = open_dataset(folder, split, layout), task_of(model)
    return evaluate(model, task, fitted(dataset, task.preprocessing), device=device, on_batch=on_batch)
