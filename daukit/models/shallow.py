"""The shallow networks of section 4.1 and of the authors' CIFAR-10 example: three layers and a linear one.

For segmentation they become what section 6.1 makes of AlexNet: pools behind the first are taken out, and the layers
behind them look as much farther as their maps become finer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from daukit.models.blocks import glorot_, zero_
from daukit.nn import (
    DEFAULT_MAX_DISPLACEMENT,
    DAUConv2d,
    Initialization,
    starts_of_layers,
)
from daukit.ops import MuGradient
from daukit.ops.kernels import SIGMA_BOUNDS

LearnSigma = Literal["none", "layer", "unit"]
Task = Literal["classification", "segmentation"]
LayerFactory = Callable[[int, int, int], nn.Module]


def shallow_dau(
    channels: Sequence[int] = (96, 96, 192),
    units: int | Sequence[int] = 4,
    *,
    sigma: float = 0.5,
    learn_sigma: LearnSigma = "none",
    sigma_range: Sequence[float] | None = None,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "grid",
    mu_gradient: MuGradient = "gaussian",
    task: Task = "classification",
    factors: Sequence[int] | None = None,
    in_channels: int = 1,
    num_classes: int = 10,
    input_size: Sequence[int] = (28, 28),
) -> nn.Sequential:
    """Three DAU layers, each with batch normalisation, ReLU and 2x2 max-pooling, then one linear layer (section 4.1).

    Args:
        channels: output channels of the layers, usually three.
        units: units per (output, input) pair: of all layers, or a number for each, of which the last one holds for all
            that follow.
        sigma: standard deviation of the units, the initial one if learned.
        learn_sigma: ``"none"``, one per ``"layer"``, or one per ``"unit"`` (the general form).
        sigma_range: draw the initial sigma of every unit from between these two, as the paper does, instead.
        max_displacement: limit of |mu| per axis, in pixels of the classifier's maps.
        init: where displacements start on these maps, as in ``DAUConv2d``; ``"diagonals"`` is for layers of two units,
            and others start on the grid.
        mu_gradient: as in ``DAUConv2d``.
        task: ``"classification"``, or ``"segmentation"``: only the first pool stays, a 1x1 convolution that starts at
            zero gives scores, which are resized to the input.
        factors: for segmentation, a factor per layer on the limit of displacements and on the first ones; by default
            that by which the maps that it reads become finer without the pools, as in section 6.1: 1, 1, 2.
        in_channels: channels of the images.
        num_classes: outputs.
        input_size: (height, width) of the images to classify, on which the linear layer's size depends; any size can be
            segmented.

    Returns:
        A module that maps ``(N, in_channels, *input_size)`` to ``(N, num_classes)``, or for segmentation
        ``(N, in_channels, H, W)`` to ``(N, num_classes, H, W)``.
    """
    if learn_sigma not in ("none", "layer", "unit"):
        raise ValueError(f'learn_sigma must be "none", "layer" or "unit", got {learn_sigma!r}')
    if sigma_range is not None:
        low, high = _checked_range(sigma_range, learn_sigma)
        sigma = high  # windows have room for it
    counts = [units] if isinstance(units, int) else list(units)
    if not 1 <= len(counts) <= len(channels):
        raise ValueError(f"units must be one number, or one for each of the {len(channels)} layers, got {counts}")
    counts += counts[-1:] * (len(channels) - len(counts))
    scales = _factors(task, factors, len(channels))
    starts = starts_of_layers(init, counts, max_displacement, scales)

    def layer(inputs: int, outputs: int, place: int) -> nn.Module:
        units_of_layer = DAUConv2d(
            inputs, outputs, counts[place], max_displacement=scales[place] * max_displacement, sigma=sigma, bias=False,
            init=starts[place],
            learn_sigma=learn_sigma == "layer",
            form="gaussian" if learn_sigma == "unit" else "bilinear", mu_gradient=mu_gradient,
        )  # fmt: skip
        if sigma_range is not None and isinstance(units_of_layer.sigma, Tensor):
            nn.init.uniform_(units_of_layer.sigma, low, high)
        return units_of_layer

    return _shallow(
        layer, channels=channels, in_channels=in_channels, num_classes=num_classes, input_size=input_size, task=task
    )


def shallow(
    channels: Sequence[int] = (96, 96, 192),
    *,
    kernel_size: int = 3,
    task: Task = "classification",
    factors: Sequence[int] | None = None,
    in_channels: int = 1,
    num_classes: int = 10,
    input_size: Sequence[int] = (28, 28),
) -> nn.Sequential:
    """The plain-convolution twin of ``shallow_dau``: the same network with ``kernel_size`` filters.

    For segmentation, ``factors`` are their dilations; by default 1, 1, 2, with which layers look as far as before.
    """
    dilations = _factors(task, factors, len(channels))

    def layer(inputs: int, outputs: int, place: int) -> nn.Module:
        dilation = dilations[place]
        padding = dilation * (kernel_size // 2)
        return nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation, bias=False)

    return _shallow(
        layer, channels=channels, in_channels=in_channels, num_classes=num_classes, input_size=input_size, task=task
    )


def cifar10_dau(
    *,
    units: int = 4,
    sigma: float = 0.5,
    init: str | Initialization | None = None,
    mu_gradient: MuGradient = "gaussian",
    num_classes: int = 10,
) -> nn.Sequential:
    """The authors' CIFAR-10 example: ``shallow_dau`` on 24x24 colour crops, with displacements up to 12, 6, 6 pixels.

    Maps (N, 3, 24, 24) to (N, num_classes).

    Args:
        units: units per filter.
        sigma: standard deviation of the units.
        init: where displacements start, as in ``DAUConv2d``. The default grid is meant as the example means it, four
            corners 2.25 pixels from the axes; its code puts two units on each of two corners.
        mu_gradient: as in ``DAUConv2d``.
        num_classes: outputs.
    """
    limits = (12.0, 6.0, 6.0)
    start = {"name": "grid", "extent": 4.0} if init is None else init

    def layer(inputs: int, outputs: int, place: int) -> nn.Module:
        return DAUConv2d(
            inputs, outputs, units, max_displacement=limits[place], sigma=sigma, bias=False,
            init=start, mu_gradient=mu_gradient,
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


def _factors(task: Task, factors: Sequence[int] | None, layers: int) -> tuple[int, ...]:
    """How much farther each layer looks than in the classifier: pools behind the first, which halve maps, are out."""
    if task not in ("classification", "segmentation"):
        raise ValueError(f'task must be "classification" or "segmentation", got {task!r}')
    if task == "classification":
        if factors is not None:
            raise ValueError(f'factors are for task "segmentation", got {list(factors)}')
        return (1,) * layers
    if factors is None:
        return tuple(2 ** max(0, place - 1) for place in range(layers))
    if len(factors) != layers or min(factors) < 1:
        raise ValueError(f"factors must be a number of at least 1 for each of the {layers} layers, got {list(factors)}")
    return tuple(factors)


def _shallow(
    layer: LayerFactory,
    channels: Sequence[int],
    in_channels: int,
    num_classes: int,
    input_size: Sequence[int],
    task: Task = "classification",
) -> nn.Sequential:
    is_dense = task == "segmentation"
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for place, outputs in enumerate(channels):
        number = place + 1
        modules[f"conv{number}"] = layer(in_channels, outputs, place)
        modules[f"bn{number}"] = nn.BatchNorm2d(outputs)
        modules[f"relu{number}"] = nn.ReLU()
        modules[f"pool{number}"] = nn.Identity() if is_dense and place else nn.MaxPool2d(2)
        in_channels = outputs
    if is_dense:
        score = nn.Conv2d(in_channels, num_classes, 1)
        network: nn.Sequential = _Segmenting(modules | OrderedDict(score=score))
        glorot_(network)
        zero_(score)
        return network
    height, width = (size // 2 ** len(channels) for size in input_size)
    if min(height, width) < 1:
        raise ValueError(f"input_size {tuple(input_size)} is too small for {len(channels)} poolings by 2")
    modules["flatten"] = nn.Flatten()
    modules["classifier"] = nn.Linear(in_channels * height * width, num_classes)
    network = nn.Sequential(modules)
    glorot_(network)  # section 4.1
    return network


class _Segmenting(nn.Sequential):
    """Layers, then scores: (N, C, H, W) to (N, num_classes, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Scores of the classes at every pixel."""
        # A 2x2 pool looks at 2 p + 0.5: pixels are areas here, and not corners as behind windows with a middle.
        return F.interpolate(self.scores(input), size=input.shape[-2:], mode="bilinear", align_corners=False)

    def scores(self, input: Tensor) -> Tensor:
        """Scores of the classes at every second pixel."""
        scores: Tensor = super().forward(input)  # type: ignore[no-untyped-call]  # torch's own
        return scores
