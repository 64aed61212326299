"""AlexNet in one pipeline (Krizhevsky et al., 2012), plain and with DAUs (sections 4.2, 4.3, 6.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from daukit.models.blocks import glorot_, kept_pool, upsample_to, zero_
from daukit.nn import (
    DEFAULT_MAX_DISPLACEMENT,
    DAUConv2d,
    Initialization,
    starts_of_layers,
)
from daukit.ops import MuGradient

Size = Literal["large", "medium", "small"]
Task = Literal["classification", "segmentation"]
Pools = Literal["removed", "stride1"]
LayerFactory = Callable[[str, int, int, int], nn.Module]

UNITS: dict[str, tuple[int, int, int, int]] = {
    "large": (6, 4, 4, 4),
    "medium": (4, 2, 2, 2),
    "small": (2, 1, 1, 1),
}
"""Units per filter in layers 2 to 5 (Table 3)."""

FACTORS = {"conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2, "fc6": 4, "fc7": 4}
"""Factors by which the maps that layers read become finer once the last two pools no longer stride (section 6.1)."""

_KERNELS = {"conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3}


def alexnet(
    num_classes: int | None = None,
    *,
    task: Task = "classification",
    pools: Pools = "removed",
    in_channels: int = 3,
    channels: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
    input_size: Sequence[int] = (227, 227),
) -> AlexNet:
    """AlexNet: every layer sees all channels of the one before, responses are normalised locally.

    Args:
        num_classes: outputs; 1000 for classification and 21 (PASCAL VOC) for segmentation by default.
        task: ``"classification"``, or ``"segmentation"``: fully convolutional, the last two pools without their
            stride, layers 3 to 7 dilated by ``FACTORS``, scores resized to the input (section 6.1).
        pools: whether segmentation takes the last two pools out (``"removed"``) or keeps them at ``"stride1"``.
        in_channels: channels of the images.
        channels: output channels of the five convolutions.
        hidden: outputs of fc6 and fc7.
        input_size: (height, width) of the images to classify; any size can be segmented.
    """
    dilations = FACTORS if task == "segmentation" else {}

    def layer(name: str, inputs: int, outputs: int, place: int) -> nn.Module:
        kernel, dilation = _KERNELS[name], dilations.get(name, 1)
        return nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)

    return AlexNet(
        layer,
        num_classes=num_classes,
        task=task,
        pools=pools,
        in_channels=in_channels,
        channels=channels,
        hidden=hidden,
        input_size=input_size,
    )


def alexnet_dau(
    num_classes: int | None = None,
    *,
    size: Size = "medium",
    units: Sequence[int] | None = None,
    sigma: float = 0.5,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "grid",
    mu_gradient: MuGradient = "gaussian",
    task: Task = "classification",
    pools: Pools = "removed",
    in_channels: int = 3,
    channels: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
    input_size: Sequence[int] = (227, 227),
) -> AlexNet:
    """DAU-AlexNet (section 4.2): ``alexnet`` with DAU layers 2 to 5.

    For segmentation nothing is dilated in layers 3 to 5: limits and first displacements are those of classification
    times ``FACTORS`` (section 4.3). Other options are those of ``alexnet``.

    Args:
        num_classes: as in ``alexnet``.
        size: ``"large"``, ``"medium"`` or ``"small"``: units per filter as in ``UNITS`` (Table 3).
        units: units per filter in layers 2 to 5, instead of ``size``.
        sigma: standard deviation of the units.
        max_displacement: limit of |mu| per axis, in pixels of the classifier's maps.
        init: where displacements start on these maps, as in ``DAUConv2d``; ``"diagonals"`` is for layers of two units,
            and others start on the grid.
        mu_gradient: as in ``DAUConv2d``.
        task: as in ``alexnet``.
        pools: as in ``alexnet``.
        in_channels: as in ``alexnet``.
        channels: as in ``alexnet``.
        hidden: as in ``alexnet``.
        input_size: as in ``alexnet``.
    """
    if units is None and size not in UNITS:
        raise ValueError(f"size must be one of {', '.join(UNITS)}, got {size!r}")
    counts = UNITS[size] if units is None else tuple(units)
    if len(counts) != 4:
        raise ValueError(f"units must be four numbers, for layers 2 to 5, got {list(counts)}")
    factors = [FACTORS[name] if task == "segmentation" else 1 for name in _KERNELS]
    starts = starts_of_layers(init, counts, max_displacement, factors)

    def layer(name: str, inputs: int, outputs: int, place: int) -> nn.Module:
        return DAUConv2d(
            inputs, outputs, counts[place], max_displacement=factors[place] * max_displacement, sigma=sigma,
            init=starts[place], mu_gradient=mu_gradient,
        )  # fmt: skip

    return AlexNet(
        layer,
        num_classes=num_classes,
        task=task,
        pools=pools,
        in_channels=in_channels,
        channels=channels,
        hidden=hidden,
        input_size=input_size,
    )


class AlexNet(nn.Sequential):
    """Both networks; ``layer`` makes layers 2 to 5 from their name, channels in and out, and place (0 to 3).

    Classification maps (N, in_channels, *input_size) to (N, num_classes); segmentation (N, in_channels, H, W) to
    (N, num_classes, H, W), from scores at every 8th pixel.
    """

    def __init__(
        self,
        layer: LayerFactory,
        num_classes: int | None,
        task: Task,
        pools: Pools,
        in_channels: int,
        channels: Sequence[int],
        hidden: int,
        input_size: Sequence[int],
    ) -> None:
        if task not in ("classification", "segmentation"):
            raise ValueError(f'task must be "classification" or "segmentation", got {task!r}')
        if pools not in ("removed", "stride1"):
            raise ValueError(f'pools must be "removed" or "stride1", got {pools!r}')
        if len(channels) != 5:
            raise ValueError(f"channels must be five numbers, got {list(channels)}")
        dense = task == "segmentation"
        modules = _features(layer, pools, in_channels, channels, dense)
        if dense:
            modules |= _scores(channels[4], hidden, 21 if num_classes is None else num_classes)
        else:
            modules |= _classifier(channels[4], hidden, 1000 if num_classes is None else num_classes, input_size)
        super().__init__(modules)
        self.is_dense = dense
        glorot_(self)  # as section 4.2 says
        if dense:
            zero_(self.get_submodule("score"))  # as section 4.3 says

    def forward(self, input: Tensor) -> Tensor:
        """Scores of the classes, of the image or of every pixel."""
        scores = self.scores(input)
        return upsample_to(scores, input) if self.is_dense else scores

    def scores(self, input: Tensor) -> Tensor:
        """Scores of the classes, of the image or of every 8th pixel."""
        scores: Tensor = super().forward(input)  # type: ignore[no-untyped-call]  # torch's own
        return scores


def _features(
    layer: LayerFactory, pools: Pools, in_channels: int, channels: Sequence[int], dense: bool
) -> OrderedDict[str, nn.Module]:
    """Layers 1 to 5. For segmentation all windows are centred, so that output p looks at input 8 p."""
    one, two, three, four, five = channels
    modules: OrderedDict[str, nn.Module] = OrderedDict()

    def block(number: int, convolution: nn.Module, *, norm: bool = False) -> None:
        modules[f"conv{number}"] = convolution
        modules[f"relu{number}"] = nn.ReLU()
        if norm:
            modules[f"norm{number}"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    def pool(dilation: int) -> nn.Module:
        if not dense:
            return nn.MaxPool2d(3, stride=2)
        return nn.Identity() if pools == "removed" else kept_pool(dilation)

    block(1, nn.Conv2d(in_channels, one, 11, stride=4, padding=5 if dense else 0), norm=True)
    modules["pool1"] = nn.MaxPool2d(3, stride=2, padding=1 if dense else 0)
    block(2, layer("conv2", one, two, 0), norm=True)
    modules["pool2"] = pool(1)
    block(3, layer("conv3", two, three, 1))
    block(4, layer("conv4", three, four, 2))
    block(5, layer("conv5", four, five, 3))
    modules["pool5"] = pool(2)
    return modules


def _classifier(channels: int, hidden: int, num_classes: int, input_size: Sequence[int]) -> OrderedDict[str, nn.Module]:
    def reduced(size: int) -> int:
        size = (size - 11) // 4 + 1
        for _ in range(3):
            size = (size - 3) // 2 + 1
        return size

    height, width = map(reduced, input_size)
    if min(height, width) < 1:
        raise ValueError(f"input_size {tuple(input_size)} is too small for AlexNet; 67 is the least")
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    return (
        modules
        | _head(nn.Linear(channels * height * width, hidden), nn.Linear(hidden, hidden))
        | OrderedDict(fc8=nn.Linear(hidden, num_classes))
    )


def _scores(channels: int, hidden: int, num_classes: int) -> OrderedDict[str, nn.Module]:
    """The fully convolutional head: fc6 reads 6x6 cells, FACTORS apart."""
    factor = FACTORS["fc6"]
    pad = 5 * factor // 2
    fc6 = nn.Conv2d(channels, hidden, 6, padding=pad, dilation=factor)
    return _head(fc6, nn.Conv2d(hidden, hidden, 1)) | OrderedDict(score=nn.Conv2d(hidden, num_classes, 1))


def _head(fc6: nn.Module, fc7: nn.Module) -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        fc6=fc6, relu6=nn.ReLU(), drop6=nn.Dropout(), fc7=fc7, relu7=nn.ReLU(), drop7=nn.Dropout()
    )  # fmt: skip
