"""Units and parameters of a network, layer by layer and as the tables 3, 4, 6 and 8 of the paper count them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from daukit.models import create_model, record_of
from daukit.nn import DAUConv2d
from daukit.results import Count, Positive, Size

_SPATIAL = (DAUConv2d, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class LayerSize:
    """One layer with weights.

    Attributes:
        name: its name in the network.
        kind: ``"DAU"``, the sides of a convolution's filters as ``"3x3"``, or ``"linear"``.
        in_channels: channels of its input.
        out_channels: channels of its output.
        units: its units; None for other layers.
        parameters: weights and displacements, without biases and sigma, as the paper counts.
        per_filter: parameters per (output, input) pair.
    """

    name: str
    kind: str
    in_channels: Size
    out_channels: Size
    units: Count | None
    parameters: Count
    per_filter: Positive


@dataclass(frozen=True)
class PaperRow:
    """One number of a table of the paper.

    Attributes:
        table: number of the table.
        quantity: what is counted.
        count: the number for this network, as daukit counts it.
        paper: the number as the paper prints it.
    """

    table: str
    quantity: str
    count: Count
    paper: str


def empty_model(name: str, **config: Any) -> nn.Module:
    """``create_model`` without memory for the parameters, on the meta device."""
    with torch.device("meta"):
        return create_model(name, **config)


def layer_sizes(model: nn.Module) -> list[LayerSize]:
    """The model's layers with weights, in order."""
    return [
        _count(name, module) for name, module in model.named_modules() if isinstance(module, (*_SPATIAL, nn.Linear))
    ]


def unit_count(model: nn.Module) -> int:
    """All units of the model's DAU layers."""
    return sum(layer.units or 0 for layer in layer_sizes(model))


def parameter_count(model: nn.Module) -> int:
    """All parameters, biases and normalisation included."""
    return sum(parameter.numel() for parameter in model.parameters())


def paper_rows(model: nn.Module) -> list[PaperRow]:
    """The paper's numbers of a model of ``create_model`` beside daukit's; empty where no table counts its network."""
    record = record_of(model)
    if record is None or "name" not in record.architecture:
        return []
    name, config = record.architecture["name"], record.architecture.get("config", {})
    layers = layer_sizes(model)
    family = name.removesuffix("_dau")
    if family not in _UNCOUNTED or not set(config) <= _UNCOUNTED[family]:
        return []
    if family == "alexnet":
        return _alexnet(layers, str(config.get("size", "medium")) if name == "alexnet_dau" else "alexnet")
    return _srn(layers, name) if family == "srn_deblur" else _resnet(model, layers, name)


_OF_UNITS = {"sigma", "max_displacement"}
_UNCOUNTED = {
    "alexnet": {*_OF_UNITS, "size", "num_classes", "task", "pools", "hidden", "input_size"},
    "resnet50": _OF_UNITS,
    "resnet101": _OF_UNITS,
    "srn_deblur": {*_OF_UNITS, "scales"},
}
"""Options that change none of the paper's numbers; a network with any other is not the paper's."""

_ALEXNET = {  # Table 3: parameters per filter of layer 2 and of layers 3-5, sections 4.2 and 5.1: in all
    "large": ("18", "12", "4.5 million"),
    "medium": ("12", "6", "2.3 million"),
    "small": ("6", "3", "1.2 million"),
    "alexnet": ("25", "9", "3.7 million"),
}
_ALEXNET_UNITS = {"large": "1,523,712", "medium": "786,432", "small": "393,216"}
_RESNET = {
    "resnet50": ("11.3 M", "14.2 M", "25.5 M"),
    "resnet50_dau": ("7.5 M", "14.2 M", "21.7 M"),
    "resnet101": ("21.3 M", "23.1 M", "44.5 M"),
    "resnet101_dau": ("14.2 M", "23.1 M", "37.4 M"),
}
_SRN = {"srn_deblur": ("6.878 M", "6.878 M"), "srn_deblur_dau": ("1.781 M", "0.708 M")}


def _alexnet(layers: list[LayerSize], column: str) -> list[PaperRow]:
    second, others, total = _ALEXNET[column]
    spatial = [layer for layer in layers if layer.name in ("conv2", "conv3", "conv4", "conv5")]
    rows = [
        PaperRow("3", "parameters per filter, layer 2", round(spatial[0].per_filter), second),
        PaperRow("3", "parameters per filter, layers 3-5", round(spatial[1].per_filter), others),
        PaperRow("4", "parameters of layers 2-5", sum(layer.parameters for layer in spatial), total),
    ]
    units = [layer.units for layer in spatial if layer.units is not None]
    if units:
        rows.insert(2, PaperRow("2", "units", sum(units), _ALEXNET_UNITS[column]))
    return rows


def _resnet(model: nn.Module, layers: list[LayerSize], name: str) -> list[PaperRow]:
    """The total counts everything that is trained; "bottlenecks" is what is neither a 3x3 filter nor a DAU."""
    spatial = sum(layer.parameters for layer in layers if layer.kind in ("DAU", "3x3"))
    total = parameter_count(model)
    quantities = ("Conv/DAU", "bottlenecks", "total")
    counts = (spatial, total - spatial, total)
    return [PaperRow("6", *row) for row in zip(quantities, counts, _RESNET[name], strict=True)]


def _srn(layers: list[LayerSize], name: str) -> list[PaperRow]:
    """A weight of a convolution counts as a unit; biases do not count."""
    parameters = sum(layer.parameters for layer in layers)
    units = sum(layer.parameters if layer.units is None else layer.units for layer in layers)
    return [
        PaperRow("8", "parameters", parameters, _SRN[name][0]),
        PaperRow("8", "units", units, _SRN[name][1]),
    ]


def _count(name: str, module: nn.Module) -> LayerSize:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(module, nn.Linear):
        return LayerSize(name, "linear", module.in_features, module.out_features, None, weight.numel(), 1.0)
    assert isinstance(module, _SPATIAL)
    channels = module.in_channels, module.out_channels
    pairs = module.out_channels * module.in_channels // module.groups
    if isinstance(module, DAUConv2d):
        units, parameters = weight.numel(), weight.numel() + module.mu.numel()
        return LayerSize(name, "DAU", *channels, units, parameters, parameters / pairs)
    kind = "x".join(map(str, module.kernel_size))
    return LayerSize(name, kind, *channels, None, weight.numel(), weight.numel() / pairs)
