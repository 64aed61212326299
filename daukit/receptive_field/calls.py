"""One call of an operation, as torch's dispatcher sees it, with the maps that go into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from daukit.receptive_field.axes import Axis

Axes = tuple[Axis, Axis]
"""Those of y and x."""

Limits = Mapping[int, float]
"""{address of a layer's mu or weight: limit of |mu| per axis in dilated pixels}: counted instead of displacements."""


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Attributes:
        name: of the operation, without namespace, overload and the underscore of in-place variants.
        pointwise: whether torch marks it as one that treats every element by itself.
        arguments: by the names of the operation's schema, defaults included.
        output: its first output.
        maps: (argument's name, shape, axes) of every tensor that depends on the input.
        constants: the shapes of the other tensors.
        limits: see ``Limits``.
    """

    name: str
    pointwise: bool
    arguments: dict[str, Any]
    output: Tensor
    maps: list[tuple[str, torch.Size, Axes]]
    constants: list[torch.Size]
    limits: Limits

    @property
    def shape(self) -> torch.Size:
        """Shape of the first map."""
        return self.maps[0][1]

    def each(self, rule: Callable[[Axis], Axis]) -> Axes:
        """The axes of the first map after ``rule``."""
        y, x = self.maps[0][2]
        return rule(y), rule(x)

    def lost(self) -> Axes:
        """The axes when it is not known any more where they run."""
        return self.each(Axis.nowhere)

    def dims(self, name: str) -> list[int]:
        """The argument ``name``, one dimension or several, as indices from 0 on; all where there is none."""
        given, count = self.arguments.get(name), len(self.shape)
        if given is None or given == []:
            return list(range(count))
        return [dim % count for dim in (given if isinstance(given, list | tuple) else [given])]
