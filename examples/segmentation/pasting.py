"""Paste pieces over one another, such that enough of each object stays in sight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

IN_SIGHT = 0.5
"""The least share of an object that can be seen."""

_TRIES = 100

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """A part of a picture to paste.

    Attributes:
        light: brightness times opacity, (h, w) or (h, w, 3).
        opacity: (h, w), 0 to 1.
        label: class of an object; 0 for anything that belongs to the background.
    """

    light: Floats
    opacity: Floats
    label: int


@dataclass
class Scene:
    """A picture in the making.

    Attributes:
        light: brightness, (h, w) or (h, w, 3).
        owner: of each pixel: the number of the piece that it shows, from 1; 0 where there is none.
        areas: of each piece: its pixels, whether they are in sight, in the picture, or not.
        labels: of each piece.
    """

    light: Floats
    owner: NDArray[np.int64]
    areas: list[int] = field(default_factory=lambda: [0])
    labels: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def on(cls, background: Floats) -> Scene:
        return cls(background.copy(), np.zeros(background.shape[:2], np.int64))

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Of each pixel: its class."""
        return np.array(self.labels, np.uint8)[self.owner]

    def add(self, piece: Callable[[], Piece], rng: Generator) -> None:
        """Paste what ``piece`` returns at a random place, or leave it out if there is none after many tries.

        At most a quarter of its height and width is outside.
        """
        for _ in range(_TRIES):
            new = piece()
            height, width = new.opacity.shape
            top = int(rng.integers(-height // 4, len(self.owner) - height * 3 // 4))
            left = int(rng.integers(-width // 4, len(self.owner[0]) - width * 3 // 4))
            if self._paste(new, top, left):
                return

    def _paste(self, piece: Piece, top: int, left: int) -> bool:
        """Paste a piece, unless an object would be hidden, and say if that was done."""
        height, width = piece.opacity.shape
        below = (slice(max(top, 0), top + height), slice(max(left, 0), left + width))
        inside = (slice(max(-top, 0), len(self.owner) - top), slice(max(-left, 0), len(self.owner[0]) - left))
        opaque, owner = piece.opacity >= 0.5, self.owner.copy()
        owner[below][opaque[inside]] = len(self.areas)
        areas, labels = [*self.areas, int(opaque.sum())], [*self.labels, piece.label]
        seen = np.bincount(owner.ravel(), minlength=len(areas))
        if any(label and pixels < IN_SIGHT * area for label, pixels, area in zip(labels, seen, areas, strict=True)):
            return False
        self.owner, self.areas, self.labels = owner, areas, labels
        opacity = piece.opacity.reshape(height, width, *[1] * (self.light.ndim - 2))[inside]
        self.light[below] = self.light[below] * (1 - opacity) + piece.light[inside]
        return True
