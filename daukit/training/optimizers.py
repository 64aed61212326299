"""Optimisers: what a training makes of its options, the rates of a step, and the state that goes into a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from daukit.nn import parameter_groups
from daukit.training.options import TrainingOptions

_STATE = {"momentum": "momentum_buffer"}
"""Tensors that an optimiser keeps of a parameter, of its shape and type: their name in files, and torch's."""


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Make SGD with momentum, as options ask for; displacements have a rate of their own."""
    groups = parameter_groups(model, options.lr, options.mu_lr_factor * options.lr, options.weight_decay)
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every learning rate to ``factor`` times what it was at the start."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter so far, as ``"momentum.conv1.weight"``, on the CPU."""
    return {
        f"{kept}.{name}": optimizer.state[parameter][key].cpu().contiguous()
        for name, parameter in model.named_parameters()
        for kept, key in _STATE.items()
        if optimizer.state.get(parameter, {}).get(key) is not None
    }


def possible_state(model: nn.Module) -> dict[str, Tensor]:
    """All that ``state_tensors`` may name, each with a tensor of its shape and type."""
    return {f"{kept}.{name}": parameter for name, parameter in model.named_parameters() for kept in _STATE}


def restore_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser what ``state_tensors`` returned; others of ``tensors`` are passed over."""
    for name, parameter in model.named_parameters():
        for kept, key in _STATE.items():
            if f"{kept}.{name}" in tensors:
                optimizer.state[parameter][key] = tensors[f"{kept}.{name}"].to(parameter.device)
