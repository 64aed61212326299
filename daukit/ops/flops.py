"""The operator's cost, counted from shapes by the formula of docs/math.md; every backend has the same."""

from __future__ import annotations

import sys
from typing import Any

import torch

from daukit.ops.contract import Needs, backward_arguments, forward_arguments
from daukit.ops.geometry import Geometry

_COUNTER = "torch.utils.flop_counter"
_counted = False


def multiply_adds(geo: Geometry, units: int, *, whole_pixels: bool = False) -> int:
    """Multiply-adds of the forward: the blur of every input pixel, and the taps of every unit for every output pixel.

    Args:
        geo: sizes of the call.
        units: units of the whole layer, ``out_channels * in_channels / groups * units`` where it is dense.
        whole_pixels: True where all units read at whole pixels: each then has one tap, not the four of a cell.
    """
    return _blurs(geo, 1) + _reads(geo, units, _taps(whole_pixels))


def backward_multiply_adds(
    geo: Geometry, units: int, mu_gradient: str, needs: Needs, *, whole_pixels: bool = False
) -> int:
    """Multiply-adds of the gradients for input, weight, mu and sigma, those that ``needs`` asks for.

    The output gradient is scattered onto the blurred input once (for input and sigma). It is multiplied with the
    blurred input at the taps of every unit once (for weight and the exact mu gradient), and with the blur's two
    derivatives in the same way (for the paper's mu gradient). The exact gradient needs two neighbours of a whole pixel.
    """
    total, taps = 0, _taps(whole_pixels)
    if needs.input or needs.sigma:
        total += _reads(geo, units, taps)
    if needs.input:
        total += _blurs(geo, 1)
    exact = needs.mu and mu_gradient == "exact"
    if needs.weight or exact:
        total += _blurs(geo, 1) + _reads(geo, units, 3 if exact and whole_pixels else taps)
    if needs.mu and mu_gradient == "gaussian":
        total += _blurs(geo, 2) + 2 * _reads(geo, units, taps)
    if needs.sigma:
        height, width = geo.in_size
        total += _blurs(geo, 2) + geo.batch * geo.in_channels * height * width
    return total


def count_operators() -> None:
    """Teach ``torch.utils.flop_counter`` the two operators, once it is there: importing it is slow.

    A counter copies the table of formulas when it is made, so counters that already run get the formulas as well.
    """
    global _counted
    if _counted or _COUNTER not in sys.modules:
        return
    _counted = True
    counter = sys.modules[_COUNTER]
    formulas = {torch.ops.daukit.dau_conv2d: _forward_flops, torch.ops.daukit.dau_conv2d_backward: _backward_flops}
    for operator, formula in formulas.items():
        counter.register_flop_formula(operator, get_raw=True)(formula)
        for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack():
            registry = getattr(getattr(mode, "counter", mode), "flop_registry", {})
            registry[operator] = formula


def _blurs(geo: Geometry, count: int) -> int:
    """Separable filters of ``2 radius + 1`` taps along both axes, on every channel of the input; none of radius 0."""
    height, width = geo.in_size
    if geo.radius == 0:
        return 0
    return count * geo.batch * geo.in_channels * height * width * 2 * (2 * geo.radius + 1)


def _taps(whole_pixels: bool) -> int:
    """Pixels that a unit reads: those of the bilinear cell, or one."""
    return 1 if whole_pixels else 4


def _reads(geo: Geometry, units: int, taps: int) -> int:
    """Products of every unit for every output pixel."""
    height, width = geo.out_size
    return taps * units * geo.batch * height * width


def _forward_flops(*arguments: Any, **_: Any) -> int:
    tensors, options = forward_arguments(arguments)
    units, geo = tensors.weight.numel(), options.geometry(tensors)
    return 2 * multiply_adds(geo, units, whole_pixels=options.whole_pixels)


def _backward_flops(*arguments: Any, **_: Any) -> int:
    tensors, options, mask = backward_arguments(arguments)[1:]
    units, geo, needs = tensors.weight.numel(), options.geometry(tensors), Needs(*mask[:4])
    return 2 * backward_multiply_adds(geo, units, options.mu_gradient, needs, whole_pixels=options.whole_pixels)
