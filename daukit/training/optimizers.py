"""Optimisers: what a training makes of its options, the rates of a step, and the state that goes into a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from daukit.errors import NetworkError
from daukit.models.structure import dau_layers
from daukit.nn import parameter_groups
from daukit.nn.optimization import displacement_step
from daukit.training.options import TrainingOptions

_MOMENTUM = {"momentum": "momentum_buffer"}
_ADAM = {"adam_mean": "exp_avg", "adam_square": "exp_avg_sq", "adam_step": "step"}
"""Tensors that an optimiser keeps of a parameter: their name in files, and torch's."""


class SGDWithAdam(torch.optim.Optimizer):
    """Torch's SGD for all parameters but displacements, and torch's Adam for those; one state, one list of groups."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {})
        others = [group for group in self.param_groups if group["name"] != "mu"]
        moving = [group for group in self.param_groups if group["name"] == "mu"]
        self._parts = (
            torch.optim.SGD(others, lr=lr, momentum=momentum), torch.optim.Adam(moving, lr=lr, betas=betas)
        )  # fmt: skip
        for part in self._parts:
            part.state = self.state
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's takes closures
        """Do a step of both."""
        for part in self._parts:
            part.step()


def make_optimizer(model: nn.Module, options: TrainingOptions, steps: int = 1) -> torch.optim.Optimizer:
    """Make the optimiser that options ask for; displacements have a rate of their own.

    Args:
        model: any module, with or without DAU layers.
        options: of the training.
        steps: steps per epoch, by which the rate of displacements goes if it is ``"auto"``.

    Raises:
        NetworkError: the network has nothing to learn.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NetworkError("the network has no parameter that learns; set requires_grad of those that should")
    groups = _groups(model, options, steps)
    for group in groups:
        group["initial_lr"] = group["lr"]
    first, second = options.betas
    if options.optimizer != "sgd":
        kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=options.lr, betas=(first, second))
    if options.moves_by_adam and any(group["name"] == "mu" for group in groups):
        return SGDWithAdam(groups, options.lr, options.momentum, (first, second))
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def displacement_rates(model: nn.Module, options: TrainingOptions, steps: int) -> dict[str, float]:
    """The rate at which displacements begin to learn, by the names of layers where they do; arguments as above."""
    names = {id(layer.mu): name for name, layer in dau_layers(model).items() if layer.mu.requires_grad}
    groups = [group for group in _groups(model, options, steps) if group["name"] == "mu"]
    rates = {id(mu): float(group["lr"]) for group in groups for mu in group["params"]}
    return {name: rates[mu] for mu, name in names.items()}


def _groups(model: nn.Module, options: TrainingOptions, steps: int) -> list[dict[str, Any]]:
    mu_lr: float | Literal["auto"]
    if options.moves_by_adam:
        mu_lr = displacement_rate(options, steps) if options.mu_lr == "auto" else options.mu_lr
    else:
        factor = options.mu_lr_factor
        mu_lr = "auto" if factor == "auto" or factor is None else factor * options.lr
    return parameter_groups(model, options.lr, mu_lr, options.weight_decay)


def displacement_rate(options: TrainingOptions, steps: int) -> float:
    """The rate of displacements by Adam for a training with its schedule, as ``displacement_step`` has it.

    Args:
        options: of the training.
        steps: steps per epoch.
    """
    total = options.epochs * max(steps, 1)
    points = min(total, 10_000)
    squares = sum(options.mu_rate((place + 0.5) / points * options.epochs) ** 2 for place in range(points))
    return displacement_step(squares * total / points)


def can_be_prolonged(model: nn.Module, options: TrainingOptions) -> bool:
    """Tell whether a run of more epochs would have begun alike: no rate of its steps depends on their number."""
    by_length = options.moves_by_adam and options.mu_lr == "auto"
    moves = any(layer.mu.requires_grad for layer in dau_layers(model).values())
    return options.is_prolongable and not (by_length and moves)


def set_rates(optimizer: torch.optim.Optimizer, factor: float, mu_factor: float | None = None) -> None:
    """Set every learning rate to ``factor`` times what it was at the start, that of displacements to ``mu_factor``."""
    for group in optimizer.param_groups:
        is_other = mu_factor is not None and group["name"] == "mu"
        group["lr"] = group["initial_lr"] * (mu_factor if is_other else factor)


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter so far, as ``"momentum.conv1.weight"``, on the CPU."""
    named = _kept_by_name(model, optimizer)
    return {
        f"{kept}.{name}": optimizer.state[parameter][key].cpu().contiguous()
        for name, (parameter, keys) in named.items()
        for kept, key in keys.items()
        if optimizer.state.get(parameter, {}).get(key) is not None
    }


def possible_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """For each parameter, all that ``state_tensors`` may name, each with a tensor of its shape and type.

    Files have all of a parameter's or none.
    """
    count = torch.zeros((), dtype=torch.float32)
    return {
        name: {f"{kept}.{name}": count if key == "step" else parameter for kept, key in keys.items()}
        for name, (parameter, keys) in _kept_by_name(model, optimizer).items()
    }


def restore_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser what ``state_tensors`` returned; others of ``tensors`` are passed over."""
    for name, (parameter, keys) in _kept_by_name(model, optimizer).items():
        for kept, key in keys.items():
            if f"{kept}.{name}" in tensors:
                tensor = tensors[f"{kept}.{name}"]
                # torch's Adam counts steps on the CPU, wherever the parameter is.
                optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


def _kept_by_name(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, tuple[nn.Parameter, Mapping[str, str]]]:
    """Each parameter by name, with what is kept of it."""
    kept = {
        id(parameter): _ADAM if "betas" in group else _MOMENTUM
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: (parameter, kept[id(parameter)]) for name, parameter in model.named_parameters()}
