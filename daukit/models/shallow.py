"""The shallow networks of section 4.1 and of the authors' CIFAR-10 example: three layers and a linear one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d, Initialization
from daukit.ops.kernels import SIGMA_BOUNDS

LearnSigma = Literal["none", "layer", "unit"]


def shallow_dau(
    channels: Sequence[int] = (96, 96, 192),
    units: int = 4,
    *,
    sigma: float = 0.5,
    learn_sigma: LearnSigma = "none",
    sigma_range: Sequence[float] | None = None,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "grid",
    in_channels: int = 1,
    num_classes: int = 10,
    input_size: Sequence[int] = (28, 28),
) -> nn.Sequential:
    """Three DAU layers, each with batch normalisation, ReLU and 2x2 max-pooling, then one linear layer (section 4.1).

    Args:
        channels: output channels of the three layers.
        units: units per (output, input) pair.
        sigma: standard deviation of the units, the initial one if learned.
        learn_sigma: ``"none"``, one per ``"layer"``, or one per ``"unit"`` (the general form).
        sigma_range: draw the initial sigma of every unit from between these two, as the paper does, instead.
        max_displacement: limit of |mu| per axis, in pixels.
        init: where displacements start, as in ``DAUConv2d``.
        in_channels: channels of the images.
        num_classes: outputs.
        input_size: (height, width) of the images; the linear layer's size follows from it.

    Returns:
        A module that maps ``(N, in_channels, *input_size)`` to ``(N, num_classes)``.
    """
    if learn_sigma not in ("none", "layer", "unit"):
        raise ValueError(f'learn_sigma must be "none", "layer" or "unit", got {learn_sigma!r}')
    if sigma_range is not None:
        low, high = _checked_range(sigma_range, learn_sigma)
        sigma = high  # windows have room for it

    def layer(inputs: int, outputs: int) -> nn.Module:
        units_of_layer = DAUConv2d(
            inputs, outputs, units, max_displacement=max_displacement, sigma=sigma, bias=False, init=init,
            learn_sigma=learn_sigma == "layer", form="gaussian" if learn_sigma == "unit" else "bilinear",
        )  # fmt: skip
        if sigma_range is not None and isinstance(units_of_layer.sigma, Tensor):
            nn.init.uniform_(units_of_layer.sigma, low, high)
        return units_of_layer

    return _shallow(layer, channels=channels, in_channels=in_channels, num_classes=num_classes, input_size=input_size)


def shallow(
    channels: Sequence[int] = (96, 96, 192),
    *,
    kernel_size: int = 3,
    in_channels: int = 1,
    num_classes: int = 10,
    input_size: Sequence[int] = (28, 28),
) -> nn.Sequential:
    """The plain-convolution twin of ``shallow_dau``: the same network with ``kernel_size`` filters."""

    def layer(inputs: int, outputs: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)

    return _shallow(layer, channels=channels, in_channels=in_channels, num_classes=num_classes, input_size=input_size)


def cifar10_dau(*, units: int = 4, sigma: float = 0.5, num_classes: int = 10) -> nn.Sequential:
    """The authors' CIFAR-10 example: ``shallow_dau`` on 24x24 colour crops, with displacements up to 12, 6, 6 pixels.

    Maps (N, 3, 24, 24) to (N, num_classes). The initial grid is meant as the example means it, four corners 2.25 pixels
    from the axes; its code puts two units on each of two corners.
    """
    limits = iter((12.0, 6.0, 6.0))

    def layer(inputs: int, outputs: int) -> nn.Module:
        return DAUConv2d(
            inputs, outputs, units, max_displacement=next(limits), sigma=sigma, bias=False,
            init={"name": "grid", "extent": 4.0},
        )  # fmt: skip

    return _shallow(layer, channels=(96, 96, 192), in_channels=3, num_classes=num_classes, input_size=(24, 24))


def cifar10(*, kernel_size: int = 3, num_classes: int = 10) -> nn.Sequential:
    """The plain-convolution twin of ``cifar10_dau``."""
    return shallow(kernel_size=kernel_size, in_channels=3, num_classes=num_classes, input_size=(24, 24))


def _checked_range(sigma_range: Sequence[float], learn_sigma: LearnSigma) -> tuple[float, float]:
    if learn_sigma != "unit":
        raise ValueError(f'sigma_range is for learn_sigma "unit", got {learn_sigma!r}')
    bounds = tuple(sigma_range)
    if len(bounds) != 2 or not SIGMA_BOUNDS[0] <= bounds[0] <= bounds[1] <= SIGMA_BOUNDS[1]:
        within = "{:g} to {:g}".format(*SIGMA_BOUNDS)
        raise ValueError(f"sigma_range must be two numbers from {within}, the larger one last, got {list(bounds)}")
    return bounds[0], bounds[1]


def _shallow(
    layer: Callable[[int, int], nn.Module],
    channels: Sequence[int],
    in_channels: int,
    num_classes: int,
    input_size: Sequence[int],
) -> nn.Sequential:
    height, width = (size // 2 ** len(channels) for size in input_size)
    if min(height, width) < 1:
        raise ValueError(f"input_size {tuple(input_size)} is too small for {len(channels)} poolings by 2")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for i, outputs in enumerate(channels, start=1):
        modules[f"conv{i}"] = layer(in_channels, outputs)
        modules[f"bn{i}"] = nn.BatchNorm2d(outputs)
        modules[f"relu{i}"] = nn.ReLU()
        modules[f"pool{i}"] = nn.MaxPool2d(2)
        in_channels = outputs
    modules["flatten"] = nn.Flatten()
    modules["classifier"] = nn.Linear(in_channels * height * width, num_classes)
    return nn.Sequential(modules)
