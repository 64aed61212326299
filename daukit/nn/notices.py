"""The warning of a layer in training whose displacements left their limit because they are not projected."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from daukit.nn.layer import DAUConv2d

_noticed = False


@torch.no_grad()
def notice_far_units(layer: DAUConv2d, size: tuple[int, int]) -> None:
    """Warn, once a process, where units of ``layer`` lie beyond its limit, or read no pixel of a map of ``size``.

    Only displacements on the CPU are looked at: to read others would make the host wait for the device.
    """
    global _noticed
    if _noticed or not layer.mu.device.type == "cpu" or not layer.mu.numel() or 0 in size:
        return
    mu, limit = layer.mu.reshape(2, -1).abs(), layer.max_displacement
    if limit is None:
        far = ((mu * torch.tensor(layer.dilation)[:, None]) >= torch.tensor(size)[:, None]).any(0)
        where = f"outside the map of {size[0]} x {size[1]} pixels, where they read only zeros"
        step = "give the layer a max_displacement, and call daukit.project_displacements(model) after each step"
    else:
        far = (mu > limit).any(0)
        where = f"beyond max_displacement ({limit:g} pixels)"
        step = "call daukit.project_displacements(model) after each step of the optimiser"
    if bool(far.any()):
        _noticed = True
        count, largest = int(far.count_nonzero()), float(mu.max())
        warnings.warn(
            f"{count:,} of {far.numel():,} units of a DAUConv2d lie {where}, the farthest at {largest:.3g}; {step}",
            stacklevel=6,  # this, the layer's two functions, and torch's two of a module's call
        )
