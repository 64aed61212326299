"""Random changes of training images."""

from __future__ import annotations

from daukit.transforms.classification import MirrorAndShift
from daukit.transforms.seeded import epoch_generator

__all__ = ["MirrorAndShift", "epoch_generator"]
