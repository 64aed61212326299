"""The scale-recurrent deblurring network (Tao et al., 2018), without its recurrent cell, plain and with DAUs (7.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.models.blocks import glorot_
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d, Initialization
from daukit.ops import MuGradient

Layer5x5 = Callable[[int, int, int], nn.Module]
"""Makes what stands in the place of a 5x5 convolution: (channels in, channels out, stride) to a layer."""


def srn_deblur(*, in_channels: int = 3, width: int = 32, blocks: int = 3, scales: int = 3) -> SRNDeblur:
    """SRN-DeblurNet on RGB images: an encoder and decoder of residual blocks, run at three scales, coarse to fine.

    Args:
        in_channels: channels of the images.
        width: channels at full resolution; they double with each of the two reductions.
        blocks: residual blocks at each of the six places.
        scales: how often the network runs, each time at twice the resolution.
    """
    return SRNDeblur(_convolution, in_channels=in_channels, width=width, blocks=blocks, scales=scales)


def srn_deblur_dau(
    *,
    units: int = 2,
    sigma: float = 0.35,
    max_displacement: float = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "normal",
    mu_gradient: MuGradient = "gaussian",
    in_channels: int = 3,
    width: int = 32,
    blocks: int = 3,
    scales: int = 3,
) -> SRNDeblur:
    """DAU-SRN-DeblurNet: DAUs in all but four layers, the first, the last and the two that upsample (section 7.1).

    Other options are those of ``srn_deblur``.

    Args:
        units: units per filter.
        sigma: standard deviation of the units; small, so that the network can pass sharp pixels on.
        max_displacement: limit of |mu| per axis.
        init: where displacements start, as in ``DAUConv2d``; by default drawn from N(0, 0.5).
        mu_gradient: as in ``DAUConv2d``.
        in_channels: as in ``srn_deblur``.
        width: as in ``srn_deblur``.
        blocks: as in ``srn_deblur``.
        scales: as in ``srn_deblur``.
    """

    def layer(inputs: int, outputs: int, stride: int) -> nn.Module:
        return DAUConv2d(
            inputs, outputs, units, sigma=sigma, max_displacement=max_displacement, stride=stride,
            init=init, mu_gradient=mu_gradient,
        )  # fmt: skip

    return SRNDeblur(layer, in_channels=in_channels, width=width, blocks=blocks, scales=scales)


class SRNDeblur(nn.Module):
    """Maps (N, in_channels, H, W) to the same shape, sharp; any H and W, padded inside to whole cells."""

    def __init__(self, layer: Layer5x5, in_channels: int, width: int, blocks: int, scales: int) -> None:
        super().__init__()
        if min(in_channels, width, blocks, scales) < 1 or max(blocks, scales) > 1000:
            sizes = f"{in_channels}, {width}, {blocks}, {scales}"
            raise ValueError(
                f"in_channels, width, blocks and scales must be positive, the last two at most 1000, got {sizes}"
            )
        self.scales = scales

        def stage(channels: int, *before: nn.Module) -> nn.Sequential:
            body = [_Block(layer, channels) for _ in range(blocks)]
            return nn.Sequential(*before, *body)

        def entry(convolution: nn.Module) -> nn.Sequential:
            return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU()))

        half, quarter = 2 * width, 4 * width
        self.encoder1 = stage(width, entry(_convolution(2 * in_channels, width, 1)))
        self.encoder2 = stage(half, entry(layer(width, half, 2)))
        self.encoder3 = stage(quarter, entry(layer(half, quarter, 2)))
        self.decoder3 = stage(quarter)
        self.up2 = entry(nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1))
        self.decoder2 = stage(half)
        self.up1 = entry(nn.ConvTranspose2d(half, width, 4, stride=2, padding=1))
        self.decoder1 = stage(width)
        self.last = _convolution(width, in_channels, 1)
        glorot_(self)  # as section 7.1 says

    def forward(self, input: Tensor) -> Tensor:
        """The sharp image."""
        return self.forward_scales(input)[-1]

    def forward_scales(self, input: Tensor) -> list[Tensor]:
        """The sharp image at every scale, coarse to fine, each twice as large as the one before; for the loss."""
        sharp: Tensor | None = None
        results = []
        for blurred in self._pyramid(input):
            before = blurred if sharp is None else _resize(sharp, blurred.shape[-2:])
            sharp = self._once(torch.cat([blurred, before], dim=1))
            results.append(sharp)
        return self._without_padding(results, input)

    def image_scales(self, image: Tensor) -> list[Tensor]:
        """An image (N, in_channels, H, W) at the scales of ``forward_scales``, reduced as that reduces its input."""
        return self._without_padding(self._pyramid(image), image)

    def whole_cells(self, image: Tensor) -> Tensor:
        """An image (N, in_channels, H, W) with its last row and column repeated, so that every map divides evenly."""
        cell = 4 * 2 ** (self.scales - 1)
        height, width = image.shape[-2:]
        return F.pad(image, (0, -width % cell, 0, -height % cell), mode="replicate")

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """The image at every scale, coarse to fine, padded to whole cells."""
        whole = self.whole_cells(image)
        sizes = [(whole.shape[-2] // 2**scale, whole.shape[-1] // 2**scale) for scale in range(1, self.scales)]
        return [*(_resize(whole, size) for size in reversed(sizes)), whole]

    def _without_padding(self, images: list[Tensor], whole: Tensor) -> list[Tensor]:
        """What images at every scale, coarse to fine, show of ``whole``."""
        height, width = whole.shape[-2:]
        parts = [2**scale for scale in reversed(range(self.scales))]
        return [
            image[..., : -(-height // part), : -(-width // part)] for image, part in zip(images, parts, strict=True)
        ]

    def _once(self, images: Tensor) -> Tensor:
        """One scale: the blurred image and the estimate of it so far, side by side, to a sharper one."""
        first = self.encoder1(images)
        second = self.encoder2(first)
        third = self.decoder3(self.encoder3(second))
        second = self.decoder2(self.up2(third) + second)
        result: Tensor = self.last(self.decoder1(self.up1(second) + first))
        return result


class _Block(nn.Module):
    """Two layers and the way around them."""

    def __init__(self, layer: Layer5x5, channels: int) -> None:
        super().__init__()
        self.conv1 = layer(channels, channels, 1)
        self.relu = nn.ReLU()
        self.conv2 = layer(channels, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        change: Tensor = self.conv2(self.relu(self.conv1(input)))
        return input + change


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=stride, padding=2)


def _resize(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image, size=list(size), mode="bilinear", align_corners=False)
