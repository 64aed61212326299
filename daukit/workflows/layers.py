"""One DAU layer of a file, as results describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from daukit.checkpoint import LayerUnits
from daukit.models.descriptions import LAYER_KEYS, LEFT_OUT
from daukit.results import Count, Positive, Size


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """One DAU layer of a file.

    Attributes:
        name: its name in the network.
        type: its class.
        in_channels: channels of its input.
        out_channels: channels of its output.
        units: number of its units.
        max_displacement: limit of a displacement on each axis, in pixels of the (dilated) input; None without a limit.
        sigma: standard deviation in (dilated) pixels; None if it is learned, a tensor of the file.
        learn_sigma: sigma is learned.
        form: units read bilinearly from a blurred input, or are Gaussians of their own (the general form).
        window: side of the window of the general form; None in the bilinear one.
        stride: stride (y, x).
        dilation: dilation (y, x).
        groups: groups of channels.
        bias: it has a bias.
        initialization: name and options of its initialiser.
        mu_gradient: the paper's gradient of displacements, or the exact one.
        ragged: its pairs have unequal numbers of units, as after pruning.
        whole_pixels: it reads at displacements rounded to whole pixels.
        trim: rows and columns at the far end of the input that have no output.
        largest_displacement: largest length (Euclidean) of a displacement in input pixels, in a layer of whole pixels
            as it is rounded; None without units.
    """

    name: str
    type: str
    in_channels: Size
    out_channels: Size
    units: Count
    max_displacement: Positive | None
    sigma: Positive | None
    learn_sigma: bool
    form: Literal["bilinear", "gaussian"]
    window: Size | None
    stride: tuple[Size, Size]
    dilation: tuple[Size, Size]
    groups: Size
    bias: bool
    initialization: dict[str, Any] | None
    mu_gradient: Literal["gaussian", "exact"]
    ragged: bool
    whole_pixels: bool = False
    trim: tuple[Count, Count] = (0, 0)
    largest_displacement: Positive | None


def stored_layer_fields(layer: LayerUnits) -> dict[str, Any]:
    """The fields of ``StoredLayer`` by name."""
    description = {**LEFT_OUT, **layer.description}
    fields = {key: description[key] for key in LAYER_KEYS if key != "units"}
    fields |= {key: tuple(fields[key]) for key in ("stride", "dilation", "trim")}
    pixels = torch.tensor(fields["dilation"])[:, None] * layer.displacements  # of the layer's input
    largest = float(pixels.double().norm(dim=0).max()) if layer.mu.numel() else None
    return {**fields, "units": layer.weight.numel(), "largest_displacement": largest}
