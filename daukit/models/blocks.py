"""Parts that the families of networks share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


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
