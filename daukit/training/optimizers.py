"""Optimisers: what a training makes of its options, the rates of a step, and the state that goes into a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from daukit.nn import parameter_groups
from daukit.training.options import TrainingOptions

_MOMENTUM = {"momentum": "momentum_buffer"}
_ADAM = {"adam_mean": "exp_avg", "adam_square": "exp_avg_sq", "adam_step": "step"}
"""Tensors that an optimiser keeps of a parameter: their name in files, and torch's."""


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Make the optimiser that options ask for; displacements have a rate of their own.

    A step of SGD grows with the gradient, so that displacements get a multiple of the learning rate; Adam's does not,
    and they get a rate in pixels.
    """
    is_sgd = options.optimizer == "sgd"
    mu_lr = options.mu_lr_factor * options.lr if is_sgd else options.mu_lr
    groups = parameter_groups(model, options.lr, mu_lr, options.weight_decay)
    for group in groups:
        group["initial_lr"] = group["lr"]
    if is_sgd:
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    first, second = options.betas
    return kind(groups, lr=options.lr, betas=(first, second))


def set_rates(optimizer: torch.optim.Optimizer, factor: float, mu_factor: float | None = None) -> None:
    """Set every learning rate to ``factor`` times what it was at the start, that of displacements to ``mu_factor``."""
    for group in optimizer.param_groups:
        is_other = mu_factor is not None and group["name"] == "mu"
        group["lr"] = group["initial_lr"] * (mu_factor if is_other else factor)


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter so far, as ``"momentum.conv1.weight"``, on the CPU."""
    return {
        f"{kept}.{name}": optimizer.state[parameter][key].cpu().contiguous()
        for name, parameter in model.named_parameters()
        for kept, key in _kept(optimizer).items()
        if optimizer.state.get(parameter, {}).get(key) is not None
    }


def possible_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """For each parameter, all that ``state_tensors`` may name, each with a tensor of its shape and type.

    Files have all of a parameter's or none.
    """
    count = torch.zeros((), dtype=torch.float32)
    return {
        name: {f"{kept}.{name}": count if key == "step" else parameter for kept, key in _kept(optimizer).items()}
        for name, parameter in model.named_parameters()
    }


def restore_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser what ``state_tensors`` returned; others of ``tensors`` are passed over."""
    for name, parameter in model.named_parameters():
        for kept, key in _kept(optimizer).items():
            if f"{kept}.{name}" in tensors:
                tensor = tensors[f"{kept}.{name}"]
                # torch's Adam counts steps on the CPU, wherever the parameter is.
                optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


def _kept(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    return _MOMENTUM if isinstance(optimizer, torch.optim.SGD) else _ADAM
