"""Find height and width in a layer's output, so that maps, channels-last ones and tokens are probed alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from daukit.errors import in_words_of_caller
from daukit.receptive_field.axes import Place
from daukit.receptive_field.calls import Axes

_MAPS, _CHANNELS_LAST = (Place(2), Place(3)), (Place(1), Place(2))


@dataclass(frozen=True)
class Layout:
    """Height and width in the output of a layer; all its other dimensions but the first are channels.

    Attributes:
        places: of y and x.
        size: (height, width) of the map.
        skipped: tokens before those of the map, as a class token.
        assumed: whether it is the most likely layout, as the network's operations do not determine it.
    """

    places: tuple[Place, Place]
    size: tuple[int, int]
    skipped: int = 0
    assumed: bool = False

    def maps(self, output: Tensor) -> Tensor:
        """The output as maps (N, O, h, w)."""
        if self.skipped:
            output = output[:, self.skipped :]
        # A dimension falls apart into what is outside of its positions, the positions, and what is inside of them.
        factors, at = [len(output)], [0, 0]
        for dim in range(1, output.dim()):
            rest = output.shape[dim]
            # From the outermost in; of two at the same distance, one has a single position and is in the other.
            for i in sorted((0, 1), key=lambda i: (self.places[i].inner, self.size[i]), reverse=True):
                place, size = self.places[i], self.size[i]
                if place.dim == dim:
                    factors += [rest // (size * place.inner), size]
                    at[i], rest = len(factors) - 1, place.inner
            factors.append(rest)
        others = [i for i in range(1, len(factors)) if i not in at]
        return output.reshape(factors).permute(0, *others, *at).flatten(1, -3)

    def fits(self, shape: Sequence[int]) -> bool:
        """Check that an output of this shape can be taken apart."""
        for dim, length in enumerate(shape):
            here = sorted((p.inner, size) for p, size in zip(self.places, self.size, strict=True) if p.dim == dim)
            # From the innermost out, each axis must fill what is around it a whole number of times.
            around = [*(inner for inner, _ in here), length][1:]
            if any(outer % (inner * size) for (inner, size), outer in zip(here, around, strict=False)):
                return False
        return all(place.dim > 0 for place in self.places)

    def words(self, dims: int) -> str:
        """The layout of an output of that many dimensions, as ``"(N, C, h, w)"``."""
        names = ["*".join(n for n, p in zip("hw", self.places, strict=True) if p.dim == dim) for dim in range(dims)]
        return f"({', '.join(['N', *(name or 'C' for name in names[1:])])})"


def layout_of(
    name: str, shape: Sequence[int], axes: Axes | None, image: Sequence[int], tokens: tuple[int, int] | None
) -> Layout:
    """The layout of the output of layer ``name``.

    Args:
        name: for errors.
        shape: of the output.
        axes: of the output, if known.
        image: (height, width) of the input, whose proportions decide if nothing else does.
        tokens: (height, width) of the map, if the caller states it.

    Raises:
        ValueError: height and width are known and cannot be probed, are not known and not given, or are others than
            those given.
    """
    y, x = (None, None) if axes is None else (axes[0].place, axes[1].place)
    if axes is not None and y is not None and x is not None:
        layout = Layout((y, x), (axes[0].size, axes[1].size))
        if not layout.fits(shape):
            raise ValueError(
                f"layer {name!r} gives {tuple(shape)}, in which height and width ({layout.size[0]} x {layout.size[1]}) "
                "do not run along dimensions of their own; probe a module before or behind it"
            )
        if tokens is not None and tokens != layout.size:
            raise ValueError(
                f"layer {name!r} gives {tuple(shape)}, a map of {layout.size[0]} x {layout.size[1]} positions, not "
                f"{tokens[0]} x {tokens[1]}; correct {in_words_of_caller('tokens', '--tokens')}, or leave it out"
            )
        return layout
    if tokens is not None:
        return _given(name, shape, tokens)
    candidates = [
        Layout(places, (shape[places[0].dim], shape[places[1].dim]), assumed=True)
        for places in (_MAPS, _CHANNELS_LAST)
        if len(shape) == 4 and y in (None, places[0]) and x in (None, places[1])
    ]
    if not candidates:
        option = in_words_of_caller("tokens=(height, width)", "--tokens H,W")
        hint = f"pass {option}" if len(shape) == 3 else "probe another module"
        raise ValueError(f"layer {name!r} gives {tuple(shape)}, which does not tell where height and width are; {hint}")
    return min(candidates, key=lambda layout: abs(layout.size[0] / image[0] - layout.size[1] / image[1]))


def _given(name: str, shape: Sequence[int], tokens: tuple[int, int]) -> Layout:
    height, width = tokens
    skipped = shape[1] - math.prod(tokens) if len(shape) > 1 else -1
    if len(shape) == 3 and skipped >= 0:
        return Layout((Place(1, width), Place(1)), tokens, skipped)
    for places in (_MAPS, _CHANNELS_LAST):
        if len(shape) == 4 and (shape[places[0].dim], shape[places[1].dim]) == tokens:
            return Layout(places, tokens)
    option = in_words_of_caller("tokens", "--tokens")
    raise ValueError(f"layer {name!r} gives {tuple(shape)}, which holds no {height} x {width} tokens; correct {option}")
