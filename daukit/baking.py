"""Bake a network into a twin with plain convolutions in place of DAU layers, and export its program."""

from __future__ import annotations

import io
from collections import OrderedDict

import torch
from torch import Tensor, nn

from daukit.models.replacing import replace_everywhere, why_kept
from daukit.models.running import copy_of
from daukit.models.structure import dau_layers
from daukit.models.usercode import FAILURES
from daukit.nn import DAUConv2d
from daukit.nn.wrappers import unwrapped
from daukit.ops import dau_conv2d_gaussian
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius, blur_taps
from daukit.ops.taps import tap_kernel
from daukit.ops.units import pair_of_units

EXACT_LIMIT = 1e-6
"""Largest difference to its network, as a share of the largest output, that a twin may show in float64."""

LARGEST_KERNEL = 2**30
"""Bytes that one baked layer may take: a single far unit widens the window of all filters of its layer."""


def bake(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with plain convolutions in place of its DAU layers, equal at every position of every map.

    A DAU layer becomes its blur, two depthwise convolutions, and one convolution with the (bilinear) taps of all units;
    in the general form (a sigma for every unit), one convolution with its filters. A compiled, averaged or parallel
    model is unwrapped.

    Raises:
        ValueError: a layer's displacements need filters of more than ``LARGEST_KERNEL`` bytes, or the layer is more
            than its type says (hooks, a parametrisation, a subclass).
    """
    model = unwrapped(model, "bake")
    layers = {name: _baked(name, layer) for name, layer in dau_layers(model).items()}
    if "" in layers:
        return layers[""].train(model.training)
    twin = copy_of(model)
    for name, layer in layers.items():
        replace_everywhere(twin, name, layer)
    return twin


def export(model: nn.Module, example: Tensor, notes: dict[str, str] | None = None) -> bytes:
    """The file of a ``torch.export`` program of ``model`` for any number of images like those of ``example``.

    Args:
        model: made of torch's own layers only, as ``bake`` makes it, for the program to run without daukit.
        example: (N, C, H, W) with N at least 2: one image is special to ``torch.export``.
        notes: text files to store beside the program, by name.

    Raises:
        ValueError: ``torch.export`` cannot express the network.
    """
    model, batch = unwrapped(model, "export"), torch.export.Dim("batch")
    try:
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
    except FAILURES as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"torch.export cannot express the network ({reason}); its forward must decide nothing by its input's values"
        ) from None
    data = io.BytesIO()
    torch.export.save(program, data, extra_files=notes)
    return data.getvalue()


def _baked(name: str, layer: DAUConv2d) -> nn.Module:
    kept = why_kept(layer, DAUConv2d)
    if kept is not None:
        raise ValueError(f"layer {name!r} cannot be baked: {kept}")
    with torch.no_grad():
        if layer.form == "gaussian":
            return _filled(_general_kernel(layer), layer, (layer.window or 1) // 2)
        blur = OrderedDict() if layer.sigma == 0 else _blur(layer)
        return nn.Sequential(blur | _taps(name, layer))


def _blur(layer: DAUConv2d) -> OrderedDict[str, nn.Module]:
    """The blur along y, then along x; the image ends behind it, as it does in the DAU."""
    learned = isinstance(layer.sigma, Tensor)
    sigma = torch.as_tensor(layer.sigma, dtype=layer.weight.dtype, device=layer.weight.device)
    taps = blur_taps(sigma, blur_radius(SIGMA_BOUNDS[1] if learned else float(sigma))).gaussian
    (dy, dx), radius, channels = layer.dilation, taps.numel() // 2, layer.in_channels
    along_y = nn.Conv2d(
        channels, channels, (taps.numel(), 1), padding=(radius * dy, 0), dilation=(dy, 1), groups=channels, bias=False
    )
    along_x = nn.Conv2d(
        channels, channels, (1, taps.numel()), padding=(0, radius * dx), dilation=(1, dx), groups=channels, bias=False
    )
    for convolution in (along_y, along_x):
        convolution.to(taps.device, taps.dtype)
        convolution.weight.copy_(taps.reshape(1, 1, *convolution.kernel_size).expand_as(convolution.weight))
    return OrderedDict(blur_y=along_y, blur_x=along_x)


def _taps(name: str, layer: DAUConv2d) -> OrderedDict[str, nn.Module]:
    pair = pair_of_units(layer.unit_counts)
    mu = layer.displacements().reshape(2, -1)
    side = [int(axis.abs().max().ceil()) + 1 if axis.numel() else 1 for axis in mu]
    needed = 4 * layer.pairs * side[0] * side[1]
    if needed > LARGEST_KERNEL:
        raise ValueError(
            f"layer {name!r} has displacements of up to {max(side) - 1} pixels, so its filters would need at least "
            f"{needed:,} bytes; at most {LARGEST_KERNEL:,} are made. Prune the far units, or keep the DAU layer"
        )
    kernel, (top, left) = tap_kernel(layer.weight.flatten(), mu, pair, layer.pairs)
    bottom, right = top + kernel.shape[1] - 1, left + kernel.shape[2] - 1
    (dy, dx), (rows, columns) = layer.dilation, layer.trim
    pad = nn.ZeroPad2d((-dx * left, dx * right - columns, -dy * top, dy * bottom - rows))
    shape = (layer.out_channels, layer.in_channels // layer.groups, *kernel.shape[1:])
    return OrderedDict(pad=pad, taps=_filled(kernel.reshape(shape), layer))


def _general_kernel(layer: DAUConv2d) -> Tensor:
    """Filters of the general form, (O, C / groups, window, window): what it answers to single pixels."""
    assert isinstance(layer.sigma, Tensor) and layer.window is not None
    inputs, side, centre = layer.in_channels // layer.groups, layer.window, layer.window // 2
    pixels = layer.weight.new_zeros(inputs, layer.groups, inputs, side, side)
    pixels[range(inputs), :, range(inputs), centre, centre] = 1
    answer = dau_conv2d_gaussian(
        pixels.flatten(1, 2), layer.weight, layer.mu, layer.sigma, window=side, groups=layer.groups,
        unit_ptr=layer.unit_ptr,
    )  # fmt: skip
    return answer.transpose(0, 1).flip(-1, -2)


def _filled(kernel: Tensor, layer: DAUConv2d, radius: int = 0) -> nn.Conv2d:
    """A convolution with ``kernel`` and everything else as in ``layer``."""
    dy, dx = layer.dilation
    size = (kernel.shape[2], kernel.shape[3])
    convolution = nn.Conv2d(
        layer.in_channels, layer.out_channels, size, stride=layer.stride, padding=(radius * dy, radius * dx),
        dilation=layer.dilation, groups=layer.groups, bias=layer.bias is not None, device=kernel.device,
        dtype=kernel.dtype,
    )  # fmt: skip
    convolution.weight.copy_(kernel)
    if layer.bias is not None and convolution.bias is not None:
        convolution.bias.copy_(layer.bias)
    return convolution
