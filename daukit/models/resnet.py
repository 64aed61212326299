"""Pre-activation ResNets (He et al., 2016b) with max-pooling between stages, plain and with DAUs (section 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from daukit.models.blocks import upsample_to, zero_
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d, Initialization, starts_of_layers
from daukit.ops import MuGradient

Task = Literal["classification", "segmentation"]
Layer3x3 = Callable[[int, int, int], nn.Module]
"""Makes what stands in the place of a 3x3 convolution: (channels in, channels out, factor of finer maps) to a layer."""

DEPTHS: dict[str, tuple[int, ...]] = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
EXPANSION = 4


def resnet50(
    num_classes: int | None = None,
    *,
    task: Task = "classification",
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet50"],
) -> ResNet:
    """ResNet-50 v2, its resolution reduced by max-pooling between stages instead of by strides (section 5.2).

    Args:
        num_classes: outputs; 1000 for classification and 19 (Cityscapes) for segmentation by default.
        task: ``"classification"``, or ``"segmentation"``: without the last pool, so that scores come at every 16th
            pixel, then resized to the input; 3x3 filters behind that pool are dilated by 2 (section 6.2).
        in_channels: channels of the images.
        width: channels of the first stage's 3x3 filters; they double with every stage.
        depths: blocks of the four stages.
    """
    return ResNet(convolution, num_classes=num_classes, task=task, in_channels=in_channels, width=width, depths=depths)


def resnet50_dau(
    num_classes: int | None = None,
    *,
    units: int = 2,
    sigma: float = 0.5,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "uniform",
    mu_gradient: MuGradient = "gaussian",
    task: Task = "classification",
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet50"],
) -> ResNet:
    """DAU-ResNet-50: ``resnet50`` with a DAU layer in place of every 3x3 convolution (section 5.2).

    For segmentation, displacements behind the missing pool start, and are limited, at twice their classification
    values. Other options are those of ``resnet50``.

    Args:
        num_classes: as in ``resnet50``.
        units: units per filter.
        sigma: standard deviation of the units.
        max_displacement: limit of |mu| per axis, in pixels of the classifier's maps.
        init: where displacements start on these maps, as in ``DAUConv2d``; by default uniformly within 1.5 pixels.
        mu_gradient: as in ``DAUConv2d``.
        task: as in ``resnet50``.
        in_channels: as in ``resnet50``.
        width: as in ``resnet50``.
        depths: as in ``resnet50``.
    """
    layer = dau_layer(units, sigma, max_displacement, init, mu_gradient)
    return ResNet(layer, num_classes=num_classes, task=task, in_channels=in_channels, width=width, depths=depths)


def resnet101(
    num_classes: int | None = None,
    *,
    task: Task = "classification",
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet101"],
) -> ResNet:
    """ResNet-101 v2; arguments as in ``resnet50``."""
    return resnet50(num_classes, task=task, in_channels=in_channels, width=width, depths=depths)


def resnet101_dau(
    num_classes: int | None = None,
    *,
    units: int = 2,
    sigma: float = 0.5,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "uniform",
    mu_gradient: MuGradient = "gaussian",
    task: Task = "classification",
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet101"],
) -> ResNet:
    """DAU-ResNet-101; arguments as in ``resnet50_dau``."""
    return resnet50_dau(
        num_classes, units=units, sigma=sigma, max_displacement=max_displacement, init=init, mu_gradient=mu_gradient,
        task=task, in_channels=in_channels, width=width, depths=depths,
    )  # fmt: skip


def dau_layer(
    units: int, sigma: float, max_displacement: float, init: str | Initialization, mu_gradient: MuGradient
) -> Layer3x3:
    """Makes the layers of DAU-ResNets (section 5.2); arguments as in ``resnet50_dau``."""

    def layer(inputs: int, outputs: int, factor: int) -> nn.Module:
        (start,) = starts_of_layers(init, [units], max_displacement, [factor])
        return DAUConv2d(
            inputs, outputs, units, sigma=sigma, max_displacement=factor * max_displacement, bias=False, init=start,
            mu_gradient=mu_gradient,
        )  # fmt: skip

    return layer


def convolution(inputs: int, outputs: int, factor: int) -> nn.Module:
    """A 3x3 convolution, dilated by ``factor``."""
    return nn.Conv2d(inputs, outputs, 3, padding=factor, dilation=factor, bias=False)


class Bottleneck(nn.Module):
    """Three convolutions and the way around them, normalised and rectified before every one."""

    def __init__(self, layer: Layer3x3, inputs: int, width: int, factor: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = layer(width, width, factor)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.relu = nn.ReLU()
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4 * width, H, W)."""
        x = self.relu(self.bn1(input))
        around = input if self.shortcut is None else self.shortcut(x)
        x = self.conv2(self.relu(self.bn2(self.conv1(x))))
        change: Tensor = self.conv3(self.relu(self.bn3(x)))
        return around + change


class Backbone(nn.Module):
    """Everything up to the last normalisation: (N, in_channels, H, W) to (N, 32 * width, h, w), h = H / output_stride.

    Pools lie in front of the stages, before their branches part, so that one of them can be taken out by its name.
    Without the last pool the output stride is 16 instead of 32, and the last stage gets layers for maps twice as fine.
    """

    def __init__(
        self, layer: Layer3x3, in_channels: int, width: int, depths: Sequence[int], output_stride: int
    ) -> None:
        super().__init__()
        if output_stride not in (16, 32):
            raise ValueError(f"output_stride must be 16 or 32, got {output_stride}")
        if len(depths) != 4 or not 1 <= min(depths) <= max(depths) <= 1000:
            raise ValueError(f"depths must be four numbers from 1 to 1000, got {list(depths)}")
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.pool1 = _pool()
        inputs = width
        for stage, depth in enumerate(depths, start=1):
            finer = stage == 4 and output_stride == 16
            if stage > 1:
                self.add_module(f"pool{stage}", nn.Identity() if finer else _pool())
            blocks = []
            for _ in range(depth):
                blocks.append(Bottleneck(layer, inputs, width, 2 if finer else 1))
                inputs = EXPANSION * width
            self.add_module(f"stage{stage}", nn.Sequential(*blocks))
            width *= 2
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.out_channels = inputs

    def stages(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """The first stage's output, (N, 4 * width, H / 4, W / 4), and the last one's."""
        first: Tensor = self.get_submodule("stage1")(self.pool1(self.conv1(input)))
        x = first
        for stage in (2, 3, 4):
            x = self.get_submodule(f"stage{stage}")(self.get_submodule(f"pool{stage}")(x))
        return first, self.relu(self.norm(x))

    def forward(self, input: Tensor) -> Tensor:
        """The last stage's output."""
        return self.stages(input)[1]


class ResNet(Backbone):
    """A backbone with its classes.

    Classification maps (N, in_channels, H, W) to (N, num_classes); segmentation to (N, num_classes, H, W).
    """

    def __init__(
        self,
        layer: Layer3x3,
        num_classes: int | None,
        task: Task,
        in_channels: int,
        width: int,
        depths: Sequence[int],
    ) -> None:
        if task not in ("classification", "segmentation"):
            raise ValueError(f'task must be "classification" or "segmentation", got {task!r}')
        self.is_dense = task == "segmentation"
        super().__init__(layer, in_channels, width, depths, output_stride=16 if self.is_dense else 32)
        if self.is_dense:
            self.score = nn.Conv2d(self.out_channels, 19 if num_classes is None else num_classes, 1)
        else:
            self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.fc = nn.Linear(self.out_channels, 1000 if num_classes is None else num_classes)
        initialize(self)
        # He's rule by outputs gives large weights to the scores of few classes: the network would start sure and wrong.
        zero_(self.score if self.is_dense else self.fc)

    def forward(self, input: Tensor) -> Tensor:
        """Scores of the classes, of the image or of every pixel."""
        scores = self.scores(input)
        return upsample_to(scores, input) if self.is_dense else scores

    def scores(self, input: Tensor) -> Tensor:
        """Scores of the classes, of the image or of every 16th pixel."""
        features = super().forward(input)
        scores: Tensor = self.score(features) if self.is_dense else self.fc(self.flatten(self.avgpool(features)))
        return scores


def initialize(model: nn.Module) -> None:
    """Initialise convolutions as He et al. (2015) do: ReLUs follow them. DAU layers have a rule of their own."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, padding=1)
