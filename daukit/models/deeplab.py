"""DeepLab v3+ (Chen et al., 2018) on ResNet-101, plain and with DAUs (section 6.3, Fig. 10, Table 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from daukit.models.blocks import upsample_to, zero_
from daukit.models.resnet import DEPTHS, Backbone, Layer3x3, convolution, dau_layer, initialize
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d, Initialization
from daukit.ops import MuGradient

RATES = (6, 12, 18)
"""Dilations of the three convolutions of ASPP at output stride 16."""

WIDE_EXTENT = 2.0
"""Pixels within which units of DAU-6U start: on a map of 5x5 all of the middle position's units read something."""

Pyramid = Callable[[int, int], nn.Module]


def deeplabv3plus(
    num_classes: int = 19,
    *,
    aspp: bool = True,
    aspp_rates: Sequence[int] = RATES,
    image_pool: bool = True,
    decoder: bool = True,
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet101"],
    features: int = 256,
) -> DeepLab:
    """DeepLab v3+ at output stride 16; without its three switches, Table 7's first row.

    Args:
        num_classes: outputs; 19 for Cityscapes.
        aspp: read the backbone at three dilations at once (atrous spatial pyramid pooling).
        aspp_rates: these dilations, a branch each; smaller ones suit images of fewer than DeepLab's 513 pixels.
        image_pool: add the mean over the image.
        decoder: refine with the first stage's maps.
        in_channels: channels of the images.
        width: as in ``resnet50``.
        depths: blocks of the backbone's stages.
        features: channels of every branch and of the decoder.
    """
    if not aspp_rates or min(aspp_rates) < 1:
        raise ValueError(f"aspp_rates must be dilations of at least 1, got {list(aspp_rates)}")
    return DeepLab(
        convolution,
        partial(_Pyramid, rates=aspp_rates) if aspp else None,
        num_classes=num_classes,
        image_pool=image_pool,
        decoder=decoder,
        in_channels=in_channels,
        width=width,
        depths=depths,
        features=features,
    )


def deeplabv3plus_dau(
    num_classes: int = 19,
    *,
    units: int = 2,
    sigma: float = 0.5,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "uniform",
    mu_gradient: MuGradient = "gaussian",
    aspp: bool = True,
    aspp_units: int = 6,
    aspp_max_displacement: float = 18.0,
    aspp_init: str | Initialization | None = None,
    image_pool: bool = True,
    decoder: bool = True,
    in_channels: int = 3,
    width: int = 64,
    depths: Sequence[int] = DEPTHS["resnet101"],
    features: int = 256,
) -> DeepLab:
    """DeepLab v3+ with DAUs in the backbone, in the decoder, and one layer of six units in ASPP's place (DAU-6U).

    Other options are those of ``deeplabv3plus``.

    Args:
        num_classes: as in ``deeplabv3plus``.
        units: units per filter in backbone and decoder.
        sigma: standard deviation of the units.
        max_displacement: as in ``resnet50_dau``.
        init: as in ``resnet50_dau``, in backbone and decoder.
        mu_gradient: as in ``DAUConv2d``, of all units.
        aspp: put DAU-6U between backbone and classes.
        aspp_units: its units per filter.
        aspp_max_displacement: its limit; the paper asks for a large one, and ASPP's largest dilation is 18.
        aspp_init: where its units start, as in ``DAUConv2d``; default: uniformly within ``WIDE_EXTENT`` pixels, from
            where they learn how far to go.
        image_pool: as in ``deeplabv3plus``.
        decoder: as in ``deeplabv3plus``.
        in_channels: as in ``deeplabv3plus``.
        width: as in ``deeplabv3plus``.
        depths: as in ``deeplabv3plus``.
        features: as in ``deeplabv3plus``.
    """
    extent = min(WIDE_EXTENT, aspp_max_displacement)
    start = {"name": "uniform", "low": -extent, "high": extent} if aspp_init is None else aspp_init

    def wide(inputs: int, outputs: int) -> nn.Module:
        layer = DAUConv2d(
            inputs, outputs, aspp_units, sigma=sigma, max_displacement=aspp_max_displacement, bias=False, init=start,
            mu_gradient=mu_gradient,
        )  # fmt: skip
        return _normalized(layer, outputs)

    layer = dau_layer(units, sigma, max_displacement, init, mu_gradient)
    return DeepLab(
        layer,
        wide if aspp else None,
        num_classes=num_classes,
        image_pool=image_pool,
        decoder=decoder,
        in_channels=in_channels,
        width=width,
        depths=depths,
        features=features,
    )


class DeepLab(nn.Module):
    """Backbone, what reads it widely, the decoder, the classes: (N, in_channels, H, W) to (N, num_classes, H, W)."""

    def __init__(
        self,
        layer: Layer3x3,
        pyramid: Pyramid | None,
        num_classes: int,
        image_pool: bool,
        decoder: bool,
        in_channels: int,
        width: int,
        depths: Sequence[int],
        features: int,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(layer, in_channels, width, depths, output_stride=16)
        channels = self.backbone.out_channels
        self.aspp = None if pyramid is None else pyramid(channels, features)
        read = getattr(self.aspp, "out_channels", features) if self.aspp is not None else channels
        self.image_pool = _ImagePool(channels, features) if image_pool else None
        joined = self.aspp is not None or image_pool
        self.project = (
            _normalized(nn.Conv2d(read + image_pool * features, features, 1, bias=False), features) if joined else None
        )
        last = features if joined else channels
        self.decoder = _Decoder(layer, 4 * width, last, features) if decoder else None
        self.score = nn.Conv2d(features if decoder else last, num_classes, 1)
        initialize(self)
        zero_(self.score)

    def forward(self, input: Tensor) -> Tensor:
        """Scores of the classes at every pixel."""
        return upsample_to(self.scores(input), input)

    def scores(self, input: Tensor) -> Tensor:
        """Scores of the classes at every fourth pixel; without the decoder, at every 16th."""
        first, last = self.backbone.stages(input)
        x = last if self.aspp is None else self.aspp(last)
        if self.image_pool is not None:
            x = torch.cat([x, self.image_pool(last)], dim=1)
        if self.project is not None:
            x = self.project(x)
        if self.decoder is not None:
            x = self.decoder(first, x)
        scores: Tensor = self.score(x)
        return scores


class _Pyramid(nn.Module):
    """ASPP: a 1x1 convolution and dilated ones side by side."""

    def __init__(self, channels: int, features: int, rates: Sequence[int]) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, features, 1, bias=False)]
        convolutions += [nn.Conv2d(channels, features, 3, padding=r, dilation=r, bias=False) for r in rates]
        self.branches = nn.ModuleList(_normalized(convolution, features) for convolution in convolutions)
        self.out_channels = len(convolutions) * features

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([branch(input) for branch in self.branches], dim=1)


class _ImagePool(nn.Module):
    """The mean over the image, at every position."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        # No normalisation: a batch of one image would have a single value a channel.
        self.conv = nn.Conv2d(channels, features, 1)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        mean: Tensor = self.relu(self.conv(self.pool(input)))
        return mean.expand(-1, -1, input.shape[-2], input.shape[-1])


class _Decoder(nn.Module):
    """Joins the first stage's maps, reduced to 48 channels, and filters twice."""

    def __init__(self, layer: Layer3x3, first: int, last: int, features: int) -> None:
        super().__init__()
        reduced = min(48, first)
        self.reduce = _normalized(nn.Conv2d(first, reduced, 1, bias=False), reduced)
        self.filter1 = _normalized(layer(last + reduced, features, 1), features)
        self.filter2 = _normalized(layer(features, features, 1), features)

    def forward(self, first: Tensor, last: Tensor) -> Tensor:
        joined = torch.cat([upsample_to(last, first), self.reduce(first)], dim=1)
        result: Tensor = self.filter2(self.filter1(joined))
        return result


def _normalized(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())
