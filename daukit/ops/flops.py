"""What the operator costs, counted from shapes by the formula of docs/math.md: the same for every backend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from daukit.ops.geometry import Geometry

_COUNTER = "torch.utils.flop_counter"
_counted = False


def multiply_adds(geo: Geometry, units: int) -> int:
    """Multiply-adds of the forward: the blur of every input pixel, and four taps of every unit for every output pixel.

    Args:
        geo: sizes of the call.
        units: units of the whole layer, ``out_channels * in_channels / groups * units`` where it is dense.
    """
    return _blurs(geo, 1) + _reads(geo, units)


def backward_multiply_adds(geo: Geometry, units: int, mu_gradient: str, needs: Sequence[bool]) -> int:
    """Multiply-adds of the gradients for input, weight, mu and sigma, those that ``needs`` asks for.

    The error is spread over the input once (input, sigma); it is multiplied with the blurred input at every unit's four
    taps once (weight, the exact mu gradient), and with the input's two derivatives likewise (the paper's mu gradient).
    """
    needs_input, needs_weight, needs_mu, needs_sigma = needs[:4]
    total = 0
    if needs_input or needs_sigma:
        total += _reads(geo, units)
    if needs_input:
        total += _blurs(geo, 1)
    if needs_weight or (needs_mu and mu_gradient == "exact"):
        total += _blurs(geo, 1) + _reads(geo, units)
    if needs_mu and mu_gradient == "gaussian":
        total += _blurs(geo, 2) + 2 * _reads(geo, units)
    if needs_sigma:
        height, width = geo.in_size
        total += _blurs(geo, 2) + geo.batch * geo.in_channels * height * width
    return total


def count_operators() -> None:
    """Teach ``torch.utils.flop_counter`` the two operators, once it is there: importing it is slow.

    A counter copies the table of formulas when it is made, so those that are already counting are told, too.
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
            told = getattr(getattr(mode, "counter", mode), "flop_registry", {})
            told[operator] = formula


def _blurs(geo: Geometry, count: int) -> int:
    """Separable filters of ``2 radius + 1`` taps along both axes, on every channel of the input."""
    height, width = geo.in_size
    return count * geo.batch * geo.in_channels * height * width * 2 * (2 * geo.radius + 1)


def _reads(geo: Geometry, units: int) -> int:
    """Four taps of every unit for every output pixel."""
    height, width = geo.out_size
    return 4 * units * geo.batch * height * width


def _forward_flops(
    input: Tensor, weight: Tensor, mu: Tensor, sigma: Tensor, bias: Tensor | None, unit_ptr: Tensor | None, *sizes: Any,
    **_: Any,
) -> int:  # fmt: skip
    geo = _geometry(input, weight, unit_ptr, sizes)
    return 2 * multiply_adds(geo, weight.numel())


def _backward_flops(
    grad_output: Tensor, input: Tensor, weight: Tensor, mu: Tensor, sigma: Tensor, unit_ptr: Tensor | None, *sizes: Any,
    **_: Any,
) -> int:  # fmt: skip
    geo = _geometry(input, weight, unit_ptr, sizes)
    mu_gradient, mask = sizes[5], sizes[7]
    return 2 * backward_multiply_adds(geo, weight.numel(), mu_gradient, mask)


def _geometry(input: Tensor, weight: Tensor, unit_ptr: Tensor | None, sizes: Sequence[Any]) -> Geometry:
    """From the operator's arguments behind ``unit_ptr``: radius, stride, dilation, groups, reach and so on."""
    radius, stride, dilation, groups = sizes[:4]
    return Geometry.of(input, weight, unit_ptr, radius=radius, stride=stride, dilation=dilation, groups=groups)
