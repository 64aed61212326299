"""Multiply-adds of a network, layer by layer, for one input of its size."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daukit.models.factory import option_of
from daukit.models.record import record_of
from daukit.models.running import derived_tensors, dtype_of
from daukit.models.usercode import FAILURES
from daukit.nn import DAUConv2d
from daukit.ops.flops import multiply_adds as dau_multiply_adds
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius
from daukit.results import Count, Size


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-adds of a forward pass.

    Attributes:
        input: sizes (batch, channels, height, width) of the image that multiply-adds are counted for; None where
            neither file nor options tell the size.
        multiply_adds: multiply-adds of the forward pass; None where the size of the input is unknown.
    """

    input: tuple[Size, Size, Size, Size] | None
    multiply_adds: Count | None


UNKNOWN = Cost(input=None, multiply_adds=None)


def cost_of(network: nn.Module, shape: Sequence[int], units: Mapping[str, int] | None = None) -> Cost:
    """Multiply-adds of the whole network for one image.

    Args:
        network: it is not changed.
        shape: (channels, height, width) of the image.
        units: as in ``multiply_adds``.

    Raises:
        ValueError: the network does not take such an image.
    """
    channels, height, width = shape
    one = (1, channels, height, width)
    return Cost(input=one, multiply_adds=sum(multiply_adds(network, one, units).values()))


def default_cost(network: nn.Module) -> Cost:
    """Cost of a network of ``create_model`` for an image of its own size; ``UNKNOWN`` where its options tell none."""
    record = record_of(network)
    size = None if record is None else option_of(record.architecture, "input_size")
    channels = None if record is None else option_of(record.architecture, "in_channels")
    if size is None or channels is None:
        return UNKNOWN
    return cost_of(network, (channels, *size))


def multiply_adds(model: nn.Module, shape: Sequence[int], units: Mapping[str, int] | None = None) -> dict[str, int]:
    """Multiply-adds of the forward by the name of each DAU, convolution and linear layer; 0 where one is not called.

    The network runs once on the meta device, where there are shapes and no numbers. Biases, normalisation, activations
    and pools do not count, as in ``torch.utils.flop_counter``, which counts two operations per multiply-add.

    Args:
        model: it is not changed.
        shape: (N, C, H, W) of its input.
        units: units of whole DAU layers by name, where the model's own are not those to count.

    Raises:
        ValueError: the network does not take such an input.
    """
    empty = _on_meta(model)
    counts: Counter[str] = Counter()
    for name, module in empty.named_modules():
        if isinstance(module, _COUNTED):
            counts[name] = 0
            module.register_forward_hook(_counting(counts, name, units or {}))
    try:
        with torch.no_grad():
            empty.eval()(torch.empty(*shape, device="meta", dtype=dtype_of(empty)))
    except FAILURES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"the network does not take an input of {tuple(shape)}: {reason}") from error
    return dict(counts)


_COUNTED = (DAUConv2d, nn.modules.conv._ConvNd, nn.Linear)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model whose tensors have shapes only."""
    tensors: dict[int, Any] = {id(t): t.detach().to("meta") for t in (*model.buffers(), *derived_tensors(model))}
    for parameter in model.parameters():
        tensors[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    return copy.deepcopy(model, tensors)


def _counting(counts: Counter[str], name: str, units: Mapping[str, int]) -> Callable[..., None]:
    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, DAUConv2d):
            counts[name] += layer_multiply_adds(module, inputs[0].shape, units.get(name))
            return
        weight, result = module.weight, inputs[0] if getattr(module, "transposed", False) else output
        assert isinstance(weight, Tensor)
        if isinstance(module, nn.Linear):
            counts[name] += output.numel() * module.in_features
        else:  # every result (of a transposed one, every pixel of the input) is multiplied with its channel's filters
            counts[name] += result.numel() // result.shape[1] * weight.numel()

    return count


def layer_multiply_adds(layer: DAUConv2d, shape: Sequence[int], units: int | None = None) -> int:
    """Multiply-adds of the forward of one DAU layer for an input of ``shape`` (N, C, H, W).

    ``units`` are those of the whole layer, the layer's own by default.
    """
    batch, _, height, width = shape
    learned = isinstance(layer.sigma, Tensor)
    radius = blur_radius(SIGMA_BOUNDS[1] if learned else float(layer.sigma))
    geo = Geometry(
        batch,
        layer.in_channels,
        layer.out_channels,
        layer.groups,
        (height, width),
        layer.stride,
        layer.dilation,
        radius,
    )
    if layer.window is not None:  # the general form is a convolution of that size
        return batch * layer.pairs * layer.window**2 * math.prod(geo.out_size)
    own = layer.weight.numel() if units is None else units
    return dau_multiply_adds(geo, own, whole_pixels=layer.whole_pixels)
