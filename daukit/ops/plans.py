"""The forward of a frozen layer for images of one size, with everything prepared that does not depend on the image."""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.ops import choose_backend
from daukit.ops.contract import Options, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_taps
from daukit.ops.library import Lists, UnitArrays, array, state
from daukit.ops.phases import Direct


class Plan:
    """The forward of a layer on images of one size, its unit lists built once.

    The C++ kernels run from lists. Everything else (other dtypes, devices and backends, dilated layers that the kernels
    run by phases) calls the operator, with the same results. One plan may run in several threads at once.

    Args:
        weight: ``(out_channels, in_channels // groups, units)``; ragged: ``(total_units,)``.
        mu: ``(2, *weight.shape)``, in dilated pixels.
        unit_ptr: as in ``dau_conv2d``; None for units that are not ragged.
        sigma: one element; 0 goes with ``geo.radius`` 0.
        geo: sizes of the calls.

    Raises:
        ValueError: a displacement is not finite.
        MemoryError: there is not enough memory for the lists.
    """

    def __init__(self, weight: Tensor, mu: Tensor, unit_ptr: Tensor | None, sigma: Tensor, geo: Geometry):
        self._units = Tensors(weight, weight.detach(), mu.detach(), sigma.detach(), None, unit_ptr)
        self._geo = geo
        self._lists: Lists | None = None
        native = state() == "available" and mu.dtype == torch.float32 and mu.device.type == "cpu"
        if not native or geo.batch == 0 or 0 in geo.in_size:
            return
        direct = Direct.of(array(mu).reshape(2, -1), geo)
        if direct is None:
            return
        self._direct, self._gaussian = direct, array(blur_taps(sigma.detach(), geo.radius).gaussian)
        self._lists = Lists(direct.layout(), UnitArrays(weight, direct.mu, unit_ptr), self._gaussian)

    @property
    def nbytes(self) -> int:
        """Memory of the lists in bytes."""
        return 0 if self._lists is None else self._lists.nbytes

    def run(self, input: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
        """Map ``input``, of the sizes that the plan was made for, as ``dau_conv2d`` does, without gradients.

        Args:
            input: ``(batch, in_channels, height, width)``.
            bias: ``(out_channels,)``.
            relu: set outputs below zero, after the bias, to zero.
        """
        weight, unit_ptr, geo = self._units.weight, self._units.unit_ptr, self._geo
        backend = choose_backend(input, weight, unit_ptr, geo.stride)
        if self._lists is None or backend != "native" or input.dtype != torch.float32:
            output = self._by_operator(input, bias, backend)
            return output.relu_() if relu else output
        image = self._direct.arrange(input.detach(), self._gaussian)
        output = image.new_empty(geo.batch, geo.out_channels, *geo.out_size)
        self._lists.run(image, bias, relu, output)
        return output

    def _by_operator(self, input: Tensor, bias: Tensor | None, backend: str) -> Tensor:
        geo, tensors = self._geo, self._units._replace(input=input, bias=bias)
        options = Options(geo.radius, geo.stride, geo.dilation, geo.groups, geo.limit, "exact", backend)
        with torch.no_grad():
            output: Tensor = torch.ops.daukit.dau_conv2d(*tensors, *options)
        return output
