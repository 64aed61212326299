"""Displacements that become whole while a network learns: from then on units stay where they were rounded to."""

from __future__ import annotations

import torch
from torch import nn

from daukit.models.structure import dau_layers
from daukit.nn import project_displacements


def check_settling(model: nn.Module, called: str = "the network") -> None:
    """Raise ``ValueError`` if ``model`` has no displacements that can become whole, or some that cannot."""
    layers = dau_layers(model)
    if not layers:
        raise ValueError(f"{called} has no DAU layer, so no displacements that could become whole")
    for name, layer in layers.items():
        if layer.form == "gaussian":
            raise ValueError(
                f"layer {name!r} of {called} learns a sigma per unit, and the general form has no pixels to read at"
            )


def snap_layers(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Move every unit to its nearest whole pixel for good: layers read there, and ``mu`` is no longer trained.

    Args:
        model: one that ``check_settling`` lets pass.
        optimizer: forgets the momentum of displacements.
    """
    for layer in dau_layers(model).values():
        layer.whole_pixels = True
        if optimizer is not None:
            optimizer.state.pop(layer.mu, None)
    hold(model)


def hold(model: nn.Module) -> None:
    """Settle the layers that read at whole pixels, within their limits, and train their displacements no more."""
    for layer in dau_layers(model).values():
        if layer.whole_pixels:
            project_displacements(layer)
            layer.settle()
            layer.mu.requires_grad_(False)
            layer.mu.grad = None
