"""Parameter groups for optimisers, and the projection after each step."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from daukit.nn.layer import DAUConv2d
from daukit.nn.pixels import keep_apart, whole_limit
from daukit.nn.wrappers import unwrapped
from daukit.ops.kernels import SIGMA_BOUNDS


def parameter_groups(
    model: nn.Module, lr: float, mu_lr: float | Literal["auto"], weight_decay: float, *, steps: float | None = None
) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimiser: weight decay on weights only, a learning rate of their own for mu.

    ``mu_lr`` has no default, as it depends on the optimiser. For SGD, ``"auto"`` is ``displacement_factor(layer) * lr``
    in each layer, and the paper's ResNets take ``500 * lr`` (section 5.2). Adam's step does not grow with the gradient:
    there ``mu_lr`` is about the pixels that a unit moves in a step, and ``"auto"`` needs to know the ``steps``.

    Args:
        model: any module, with or without DAU layers.
        lr: learning rate of everything but mu.
        mu_lr: learning rate of displacements, or ``"auto"``.
        weight_decay: decay of convolution, linear and DAU weights; normalisation, biases, mu and sigma have none.
        steps: for Adam and its kin, with ``mu_lr="auto"``: steps of the whole training at a constant rate, or where a
            schedule lowers it, the sum of the squares of what each is multiplied by: with a line to zero a third of the
            steps, with half a cosine three eighths. Default: the optimiser is SGD.

    Returns:
        Groups ``weights``, ``others`` and ``mu`` (those that are not empty), each with its ``name``; with ``"auto"``
        a group ``mu`` for each rate.

    Raises:
        ValueError: ``lr`` or ``mu_lr`` is no finite number of at least 0 nor, for ``mu_lr``, ``"auto"``; there are
            fewer ``steps`` than one, or ``mu_lr`` is a rate that does not depend on them.
    """
    for name, rate in (("lr", lr), ("mu_lr", mu_lr)):
        is_word = rate == "auto" and name == "mu_lr"
        if not is_word and not _is_rate(rate):
            word = ' or "auto"' if name == "mu_lr" else ""
            raise ValueError(f"{name} must be a finite number of at least 0{word}, got {rate!r}")
    if steps is not None:
        if mu_lr != "auto" or not (_is_rate(steps) and steps >= 1):
            raise ValueError(f'steps must be at least 1, with mu_lr="auto", got {steps!r} and {mu_lr!r}')
        mu_lr = displacement_step(steps)
    model = unwrapped(model, "parameter_groups")
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    moving: dict[float, list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if isinstance(module, DAUConv2d) and name == "mu":
                rate = displacement_factor(module) * lr if mu_lr == "auto" else mu_lr
                moving.setdefault(rate, []).append(parameter)
            else:
                decays = name not in ("bias", "sigma") and not isinstance(module, norms)
                (weights if decays else others).append(parameter)
    groups: list[tuple[str, list[nn.Parameter], float, float]] = [
        ("weights", weights, lr, weight_decay), ("others", others, lr, 0.0),
        *(("mu", parameters, rate, 0.0) for rate, parameters in moving.items()),
    ]  # fmt: skip
    return [
        {"name": name, "params": params, "lr": rate, "weight_decay": decay}
        for name, params, rate, decay in groups
        if params
    ]


def _is_rate(value: object) -> bool:
    """Tell whether a value is what torch takes for a rate: a finite number of at least 0, also in a tensor."""
    return isinstance(value, Real | Tensor) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def displacement_factor(layer: DAUConv2d) -> float:
    """The multiple of the learning rate of weights at which displacements of a layer keep pace with them under SGD.

    The gradient of a unit's weight is a correlation of the input with the output's gradient; that of its displacement
    is the same of the input's slope, times the weight. A step that changes a weight by the share ``d`` of itself should
    move its unit by about ``d / sqrt(2)`` pixels, over which blurred maps change as much as they are large: that takes
    a factor of ``1 / (2 w^2)``. By Glorot's rule ``w^2`` is ``2 / ((C_in + C_out) K)`` at the start, so the factor is
    ``(C_in + C_out) K / 4``.

    Args:
        layer: of ``C_in`` channels per group, ``C_out`` outputs, and ``K`` units per pair, the mean if they differ.
    """
    inputs = layer.in_channels // layer.groups
    units = layer.weight.numel() / max(layer.out_channels * inputs, 1)
    return (inputs + layer.out_channels) * units / 4


def displacement_step(squares: float) -> float:
    """The rate of displacements by Adam with which noise alone takes units a pixel astray over a training.

    A step of Adam is the rate times a mean of gradients over their root mean square. Where they are noise, what the
    steps sum up to has the variance of as many independent numbers of variance 1, each times its rate. Where gradients
    agree, units get much farther: the sum of the rates. In trainings of a hundred steps or less it is a tenth of a
    pixel: ten steps then take a unit to the next one.

    Args:
        squares: the sum over all steps of the square of what a schedule multiplies the rate by; without a schedule,
            the number of steps.
    """
    return min(0.1, 1 / math.sqrt(max(squares, 1.0)))


@torch.no_grad()
def project_displacements(model: nn.Module, *, apart: bool = False) -> None:
    """Clamp mu per axis to ``max_displacement``, and learned sigmas to [0.1, 1.6]; call it after each step.

    In layers of whole pixels the limit is the last whole pixel within ``max_displacement``.

    Args:
        model: any module.
        apart: in layers of whole pixels, let no two units of a pair read at the same pixel. Of those that do, the one
            nearest to the pixel stays; the others, the nearest first, are put on the free pixel within the limit that
            is nearest to them, the uppermost and then the leftmost of those equally near. Pairs of more units than
            there are pixels within the limit stay as they are.
    """
    for module in unwrapped(model, "project_displacements").modules():
        if isinstance(module, DAUConv2d):
            if module.max_displacement is not None:
                limit = whole_limit(module.max_displacement) if module.whole_pixels else module.max_displacement
                module.mu.clamp_(-limit, limit)
            if isinstance(module.sigma, Tensor):
                module.sigma.clamp_(*SIGMA_BOUNDS)
            if apart and module.whole_pixels:
                pixels = keep_apart(module.mu.reshape(2, -1), module.unit_counts, module.max_displacement)
                pixels = pixels.reshape(module.mu.shape)
                moved = (pixels != module.mu.round()).any(0)
                module.mu.copy_(torch.where(moved, pixels, module.mu))


def settle(model: nn.Module, *, apart: bool = False) -> None:
    """Round the displacements of layers that read at whole pixels for good; call it when training is over.

    The model computes the same as before, and files hold such displacements in a byte a coordinate. With ``apart`` no
    two units of a pair share a pixel, as ``project_displacements`` has it, which changes what the model computes.
    """
    for module in unwrapped(model, "settle").modules():
        if isinstance(module, DAUConv2d) and module.whole_pixels:
            module.settle(apart=apart)
