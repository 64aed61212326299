"""Snapping: units at whole pixels, with refitted weights."""

from daukit.snapping.filters import Target
from daukit.snapping.model import LayerKept, LayerSnap, Matched, SnapReport, snap

__all__ = ["LayerKept", "LayerSnap", "Matched", "SnapReport", "Target", "snap"]
