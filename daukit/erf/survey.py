"""One look at a network before it is probed: what its layers can see, and how much of the input that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from daukit.erf.axes import Axis, Place
from daukit.erf.calls import Axes
from daukit.erf.forward import find_layers, frozen, run_to_layers
from daukit.erf.layout import Layout, layout_of
from daukit.erf.tracing import TheoreticalField, Tracer, displacement_limits
from daukit.errors import NetworkError
from daukit.nn.wrappers import unwrapped

_FINEST = 1024
"""Scales are taken as fractions of at most this denominator."""

_ROUNDING = 1e-6
"""Pixels by which sums of such fractions may be off."""

_AGREEMENT = 1e-4
"""Outputs of the crop may differ by this share of the largest one: float32 sums in another order, no more."""


@dataclass(frozen=True)
class Site:
    """One layer and the place in it that is probed.

    Attributes:
        channels: of its output.
        position: (y, x), half of its map's height and width, rounded down.
        theory: what it can see; None where nobody can tell.
        limit: the same, were every unit of DAU layers as far out as its layer allows.
        cropped: the probed position when the input is cropped.
        layout: of its output then.
        words: for the layout.
    """

    channels: int
    position: tuple[int, int]
    theory: TheoreticalField | None
    limit: TheoreticalField | None
    cropped: tuple[int, int]
    layout: Layout
    words: str


@dataclass(frozen=True)
class Survey:
    """What one image through the network tells.

    Attributes:
        sites: by layer.
        rows: the input's rows that the probed positions can see: as far as anything else there cannot matter.
        columns: likewise.
        memory: bytes that the maps of one image take, cropped.
    """

    sites: dict[str, Site]
    rows: slice
    columns: slice
    memory: int


def survey_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    image: Tensor,
    *,
    crop: bool = True,
    tokens: tuple[int, int] | None = None,
) -> Survey:
    """Run one image (1, C, H, W) through the network, frozen already, and follow it.

    The crop is what the probed positions depend on, widened to the grid of all strides on the way. It is used only if
    every operation before them moves with its input, if the arithmetic comes out the same on the crop, and if the
    probed outputs do too. Otherwise the crop is the whole image.
    """
    whole = _look(model, layers, image, tokens=tokens)
    used = (_look_through_crop(model, layers, image, whole) if crop else None) or whole
    limits = displacement_limits(model)
    widest = _look(model, layers, image, limits, tokens=tokens) if limits else whole
    sites = {
        name: Site(
            look.outputs.numel(),
            look.position,
            look.theory,
            widest.layers[name].theory,
            used.layers[name].position,
            used.layers[name].layout,
            look.layout.words(look.dims),
        )
        for name, look in whole.layers.items()
    }
    return Survey(sites, used.rows, used.columns, used.memory)


def theoretical_receptive_field(
    model: nn.Module,
    layers: str | Sequence[str],
    image: Tensor,
    *,
    limits: bool = False,
    tokens: tuple[int, int] | None = None,
) -> list[TheoreticalField | None]:
    """What the outputs of layers can see by the arithmetic of strides, paddings, windows and displacements.

    Args:
        model: any module.
        layers: names of modules that give maps, as in ``effective_receptive_field``.
        image: (1, C, H, W), what the model takes.
        limits: count DAU units as far out as their layers allow, instead of where they are.
        tokens: as in ``effective_receptive_field``.

    Returns:
        One field per layer; None where an operation of unknown arithmetic is on the way to it.

    Raises:
        ValueError: as in ``effective_receptive_field``.

    Example:
        >>> (field,) = theoretical_receptive_field(nn.Conv2d(1, 1, 5, stride=2), "", torch.rand(1, 1, 9, 9))
        >>> field.size, field.stride, field.center
        ((5, 5), (2.0, 2.0), (2.0, 2.0))
    """
    model = unwrapped(model, "theoretical_receptive_field")
    names = [layers] if isinstance(layers, str) else list(layers)
    with frozen(model):
        farthest = displacement_limits(model) if limits else None
        looks = _look(model, find_layers(model, names), image, farthest, tokens=tokens)
    return [looks.layers[name].theory for name in names]


@dataclass(frozen=True)
class _Look:
    """A layer in one traced pass: its axes, layout and dimensions, the probed position and the outputs there (O,)."""

    axes: Axes | None
    layout: Layout
    dims: int
    position: tuple[int, int]
    outputs: Tensor

    @property
    def theory(self) -> TheoreticalField | None:
        return None if self.axes is None else TheoreticalField.of(self.axes)

    def moved(self, top: int, left: int) -> tuple[int, int]:
        """The probed position when the input begins at (top, left)."""
        assert self.axes is not None
        y, x = (
            p - round(start / axis.scale) for p, start, axis in zip(self.position, (top, left), self.axes, strict=True)
        )
        return y, x


@dataclass(frozen=True)
class _Looks:
    """All layers in one traced pass, the part of the image that went through, and the bytes that its maps took."""

    layers: dict[str, _Look]
    rows: slice
    columns: slice
    memory: int


def _look(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    image: Tensor,
    limits: Mapping[int, float] | None = None,
    positions: Mapping[str, tuple[int, int]] | None = None,
    tokens: tuple[int, int] | None = None,
) -> _Looks:
    looks: dict[str, _Look] = {}
    image = image.detach().clone()  # a model may change its input in place
    tracer = Tracer(image, limits)

    def visit(name: str, output: Tensor) -> None:
        axes = tracer.axes(output)
        layout = layout_of(name, output.shape, axes, image.shape[2:], tokens)
        y, x = positions[name] if positions else (layout.size[0] // 2, layout.size[1] // 2)
        looks[name] = _Look(axes, layout, output.dim(), (y, x), layout.maps(output)[0, :, y, x].clone())

    with torch.inference_mode(False), torch.no_grad(), tracer:
        run_to_layers(model, layers, image, visit)
    return _Looks(looks, slice(0, image.shape[2]), slice(0, image.shape[3]), tracer.memory)


def _look_through_crop(
    model: nn.Module, layers: Mapping[str, nn.Module], image: Tensor, whole: _Looks
) -> _Looks | None:
    """As ``_look``, at what of the image the probed positions can see; None where that is all, or not the same."""
    rows, columns = (_window(whole, i, image.shape[2 + i]) for i in (0, 1))
    part = image[:, :, rows, columns]
    if part.shape == image.shape:
        return None
    positions = {name: look.moved(rows.start, columns.start) for name, look in whole.layers.items()}
    try:
        small = _look(model, layers, part, positions=positions)
    except (ValueError, IndexError, NetworkError):  # the network cannot take the crop, or its maps are of other sizes
        return None
    same = all(_agree(look, small.layers[name]) for name, look in whole.layers.items())
    return replace(small, rows=rows, columns=columns) if same else None


def _agree(whole: _Look, part: _Look) -> bool:
    """Whether the layer is the same, seen through the crop: its arithmetic and the probed outputs."""
    if whole.axes is None or part.axes is None:
        return False
    same = all(_without_size(a) == _without_size(b) for a, b in zip(whole.axes, part.axes, strict=True))
    largest = float(whole.outputs.abs().max())
    return same and bool(((whole.outputs - part.outputs).abs() <= _AGREEMENT * largest).all())


def _without_size(axis: Axis) -> Axis:
    return replace(axis, size=0, place=None if axis.place is None else Place(axis.place.dim))


def _window(whole: _Looks, i: int, size: int) -> slice:
    """The input's rows (i = 0) or columns (i = 1) that all probed positions together can see."""
    seen = [(look.axes[i] if look.axes else None, look.position[i]) for look in whole.layers.values()]
    if not all(axis is not None and _moves(axis) for axis, _ in seen):
        return slice(0, size)
    axes = [(axis, position) for axis, position in seen if axis is not None]
    # On a map of scale a / b, a multiple of a is a whole number of positions.
    grid = math.lcm(*(Fraction(step).limit_denominator(_FINEST).numerator for axis, _ in axes for step in axis.steps))
    start = min(axis.scale * position + axis.first for axis, position in axes) + _ROUNDING
    end = max(axis.scale * position + axis.last for axis, position in axes) + _ROUNDING
    # It ends on the grid too: maps that were made smaller and larger again must meet those that were not.
    return slice(max(0, math.floor(start / grid)) * grid, min(size, math.ceil((math.floor(end) + 1) / grid) * grid))


def _moves(axis: Axis) -> bool:
    finite = not (math.isinf(axis.first) or math.isinf(axis.last) or math.isinf(axis.low) or math.isinf(axis.high))
    return axis.shifts_along and finite and axis.place is not None
