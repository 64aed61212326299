"""Arguments of ``nn.Conv2d`` and of the authors' layers, each with what to write instead."""

from __future__ import annotations

from collections.abc import Collection

INSTEAD = {
    "kernel_size": "there is no window; units=2 stands for a 3x3 filter and units=6 for a 9x9 one, max_displacement=4 "
    "says how far they may move",
    "padding": "a DAU has no window: outside the image it reads zeros, and the output is ceil(size / stride)",
    "padding_mode": "outside the image a DAU reads zeros, which is nn.Conv2d's padding_mode='zeros'",
    "device": "make the layer under torch.device(...), or move it by .to(...)",
    "dtype": "make the layer, then .to(torch.float64); parameters are never half, only the input may be",
    "max_kernel_size": "say max_displacement=(max_kernel_size - 1) / 2",
    "dau_units": "say units=(rows, columns), and see docs/math.md for what else differs",
    "dau_sigma_trainable": "say learn_sigma=True",
    "filters": "say out_channels",
    "num_output": "say out_channels",
}

OPTIONS = (
    "max_displacement", "sigma", "learn_sigma", "form", "window", "stride", "dilation", "groups", "bias", "init",
    "mu_gradient", "whole_pixels",
)  # fmt: skip


def check_call(positional: Collection[object], options: Collection[str]) -> None:
    """Raise for arguments that ``DAUConv2d`` does not have, in words that say what to write.

    Raises:
        TypeError: there are any.
    """
    if positional:
        raise TypeError(
            f"DAUConv2d(in_channels, out_channels, units, ...) takes three arguments by position, got "
            f"{3 + len(positional)}; the third is the number of units, not a kernel_size; write the others by name, as "
            "stride=2, dilation=2, groups=1"
        )
    for option in options:
        more = INSTEAD.get(option, f"it has {', '.join(OPTIONS)}")
        raise TypeError(f"DAUConv2d has no {option}: {more}")
