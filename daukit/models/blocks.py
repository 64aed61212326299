"""Parts that the families of networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.no_grad()
def glorot_(model: nn.Module) -> None:
    """Start plain convolutions and linear layers by Glorot and Bengio (2010), their biases at zero; in place.

    DAU layers are left alone: they start by the same rule themselves.
    """
    # Normal, not uniform: the two have the same variance, the DAU layers of these networks start normally, and so do
    # the weights of the authors' examples.
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not module.weight.is_meta:
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def zero_(scores: nn.Module) -> None:
    """Start the layer of class scores at zero, in place: all classes are as likely, so the first loss is ln(classes).

    That layer learns from the first step on, since what it reads is not zero; layers below it follow from the second.
    """
    for parameter in scores.parameters():
        nn.init.zeros_(parameter)


def kept_pool(dilation: int) -> nn.Module:
    """A 3x3 max-pool at stride 1 whose taps lie where those of the striding one lay, once maps are finer."""
    if dilation == 1:
        return nn.MaxPool2d(3, stride=1, padding=1)
    # torch's pool pads by no more than half its kernel, whatever its dilation.
    pad = nn.ConstantPad2d(dilation, float("-inf"))
    return nn.Sequential(pad, nn.MaxPool2d(3, stride=1, dilation=dilation))


def upsample_to(scores: Tensor, like: Tensor) -> Tensor:
    """Resize (N, C, h, w) bilinearly to height and width of ``like``; corner pixels meet corner pixels.

    A network whose output p looks at input s p is then exact for sizes s k + 1 (769 = 16 * 48 + 1).
    """
    return F.interpolate(scores, size=like.shape[-2:], mode="bilinear", align_corners=True)
