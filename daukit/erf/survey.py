"""A survey of a network before it is probed: its layers' theoretical fields, and the input that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from daukit.erf.crop import crop_image
from daukit.receptive_field import TheoreticalField
from daukit.receptive_field.layers import trace_layers
from daukit.receptive_field.layout import Layout
from daukit.receptive_field.tracing import displacement_limits


@dataclass(frozen=True)
class Site:
    """One layer and the place in it that is probed.

    Attributes:
        channels: of its output.
        position: (y, x), half of its map's height and width, rounded down.
        theory: its theoretical field; None if that is not known.
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
    """Findings from one image's pass through a network.

    Attributes:
        sites: by layer.
        rows: the input's rows that matter to the probed positions.
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
    """Run one image (1, C, H, W) through the network, frozen already, and follow it; crop it where that is safe."""
    whole = trace_layers(model, layers, image, tokens=tokens)
    limits = displacement_limits(model)
    widest = trace_layers(model, layers, image, limits=limits, tokens=tokens) if limits else whole
    cropped = crop_image(model, layers, image, whole) if crop else None
    used = whole if cropped is None else cropped.traced
    sites = {
        name: Site(
            channels=layer.outputs.numel(),
            position=layer.position,
            theory=TheoreticalField.of(layer.axes),
            limit=TheoreticalField.of(widest.layers[name].axes),
            cropped=used.layers[name].position,
            layout=used.layers[name].layout,
            words=layer.layout.words(layer.dims),
        )
        for name, layer in whole.layers.items()
    }
    if cropped is None:
        return Survey(sites, slice(0, image.shape[2]), slice(0, image.shape[3]), used.memory)
    return Survey(sites, cropped.rows, cropped.columns, used.memory)
