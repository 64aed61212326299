"""Layers in one traced pass of a network: their axes, their layouts, and their outputs at one position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daukit.receptive_field.calls import Axes, Limits
from daukit.receptive_field.forward import run_to_layers
from daukit.receptive_field.layout import Layout, layout_of
from daukit.receptive_field.tracing import Tracer


@dataclass(frozen=True)
class TracedLayer:
    """One layer.

    Attributes:
        axes: of its output; None if it does not depend on the input.
        layout: of its output.
        dims: number of the output's dimensions.
        position: (y, x) of the outputs looked at.
        outputs: (O,), the layer's outputs there.
    """

    axes: Axes | None
    layout: Layout
    dims: int
    position: tuple[int, int]
    outputs: Tensor


@dataclass(frozen=True)
class TracedPass:
    """One pass.

    Attributes:
        layers: by name.
        memory: bytes of the maps that the network computed.
    """

    layers: dict[str, TracedLayer]
    memory: int


def trace_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    image: Tensor,
    *,
    limits: Limits | None = None,
    positions: Mapping[str, tuple[int, int]] | None = None,
    tokens: tuple[int, int] | None = None,
) -> TracedPass:
    """Run one image (1, C, H, W) through a network and follow it as far as some layers.

    Args:
        model: the network, frozen.
        layers: its modules by name.
        image: as the network takes it.
        limits: of displacements, to count instead of them.
        positions: where to look in each layer's map; default: at its middle, ``(h // 2, w // 2)``.
        tokens: (height, width) of outputs (N, tokens, C).

    Raises:
        NetworkError: the network's forward fails on the image.
        ValueError: a layer is not reached, or its output is no map of a known layout.
        IndexError: one of ``positions`` is outside its map.
    """
    traced: dict[str, TracedLayer] = {}
    image = image.detach().clone()  # a model may change its input in place
    tracer = Tracer(image, limits)

    def visit(name: str, output: Tensor) -> None:
        axes = tracer.axes(output)
        layout = layout_of(name, output.shape, axes, image.shape[2:], tokens)
        y, x = positions[name] if positions else (layout.size[0] // 2, layout.size[1] // 2)
        traced[name] = TracedLayer(axes, layout, output.dim(), (y, x), layout.maps(output)[0, :, y, x].clone())

    with torch.inference_mode(False), torch.no_grad(), tracer:
        run_to_layers(model, layers, image, visit)
    return TracedPass(traced, tracer.memory)
