"""Torch's operations for the units within the limit, and the kernels for the blur and for the units beyond it.

Filters of the expected displacements have a size that shapes alone tell, so nothing waits for the GPU, which decides by
itself whether there is anything beyond them. Sums over channels are rounded to the dtype that the caller allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.ops import filters
from daukit.ops.by_filters import ByFilters
from daukit.ops.contract import Needs
from daukit.ops.cuda.call import Call
from daukit.ops.cuda.far import UnitGradients, far_forward, far_gradients, far_image
from daukit.ops.cuda.passes import FORMS, Cuda, Form
from daukit.ops.units import UnitList, near_units, unit_list


class Near(Cuda):
    """The operator by filters of near units, undilated, for images in any dtype that the kernels take."""

    convolves = True

    def __init__(self, name: str, sums: ByFilters):
        super().__init__()
        self.name, self._sums = name, sums

    def sum_units(self, call: Call, blurred: Tensor, bias: Tensor | None, output: Tensor, compute: torch.dtype) -> None:
        """As ``Cuda.sum_units``."""
        near, far, limit = _near(call, slopes=False)
        sums = self._sums.outputs(blurred, near, call.geo, compute)
        output.copy_(sums if bias is None else sums + bias[:, None, None])
        far_forward(call, limit, far, blurred, output)

    def image_gradient(self, call: Call, grad_output: Tensor, errors: Tensor, compute: torch.dtype) -> Tensor:
        """As ``Cuda.image_gradient``."""
        near, far, limit = _near(call, slopes=False)
        grad_blurred = call.new_images(call.geo.in_channels).zero_()
        nothing = filters.UnitGradients(near, Needs(True, False, False, False), "gaussian")
        self._sums.add_gradients(grad_output, None, near, call.geo, nothing, grad_blurred, compute)
        far_image(call, limit, FORMS[None].macros, far, errors, grad_blurred)
        return grad_blurred

    def gradients(
        self,
        call: Call,
        maps: Tensor,
        grad_output: Tensor,
        errors: Tensor,
        form: Form,
        grads: UnitGradients,
        compute: torch.dtype,
    ) -> Tensor:
        """As ``Cuda.gradients``."""
        exact = bool(form.macros["DAU_EXACT"])
        near, far, limit = _near(call, slopes=exact)
        needs = Needs(input=True, weight=True, mu=grads[1] is not None, sigma=False)
        sums = filters.UnitGradients(near, needs, "exact" if exact else "gaussian")
        grad_blurred = call.new_images(call.geo.in_channels).zero_()
        used = maps[: form.maps]
        self._sums.add_gradients(grad_output, used, near, call.geo, sums, grad_blurred, compute)
        for into, one in zip(grads, sums.flat(), strict=True):
            if into is not None and one is not None:
                into.copy_(one)
        far_image(call, limit, form.macros, far, errors, grad_blurred)
        if call.units.count:
            map_y, map_x = (used[1], used[2]) if form.maps == 3 else (None, None)
            far_gradients(call, limit, form.macros, far, (errors, used[0], map_y, map_x), grads)
        return grad_blurred


def _near(call: Call, slopes: bool) -> tuple[UnitList, Tensor, int]:
    """The units that filters are made of, the number of others, and the limit between them.

    Slopes at a displacement of the limit itself, where projection leaves many units, need the tap beyond it.
    """
    units, geo = call.units, call.geo
    limit = geo.limit + slopes
    shape = (geo.out_channels, geo.in_channels // geo.groups, units.per_pair)
    if units.unit_ptr is None:
        weight, mu = units.weight.reshape(shape), units.mu.reshape(2, *shape)
    else:
        _assert_pointers(units.unit_ptr, units.count)  # no kernel that does so is launched
        weight, mu = units.weight, units.mu
    return *near_units(unit_list(weight, mu, units.unit_ptr), limit, slopes), limit


def _assert_pointers(unit_ptr: Tensor, units: int) -> None:
    """Assert on the device what ``assert_pointers`` of cuda/sizes.cuh does: whatever waits for the GPU next fails."""
    rise = (unit_ptr.diff() >= 0).all() & (unit_ptr[0] == 0) & (unit_ptr[-1] == units)
    torch._assert_async(rise, f"unit_ptr must rise from 0 to the number of units ({units})")
