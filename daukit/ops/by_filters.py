"""What the backends that are made of torch's operations share: the blur, and sums over the filters of units."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from daukit.ops.blurring import blurred_maps, correlate, through_the_blur
from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.filters import UnitGradients
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_taps
from daukit.ops.units import UnitList, unit_list


class ByFilters(Backend):
    """A backend that correlates blurred images with the units' filters. How it does so is for its subclasses to say."""

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """As ``Backend.forward``."""
        gaussian = blur_taps(tensors.sigma, geo.radius).gaussian
        blurred = correlate(tensors.input, gaussian, gaussian, geo)
        output = self.outputs(blurred, unit_list(tensors.weight, tensors.mu, tensors.unit_ptr), geo, compute)
        return output if tensors.bias is None else output.add_(tensors.bias[:, None, None])

    def backward(
        self,
        grad_output: Tensor,
        tensors: Tensors,
        geo: Geometry,
        *,
        mu_gradient: str,
        needs: Needs,
        compute: torch.dtype,
    ) -> Gradients:
        """As ``Backend.backward``; computes only what ``needs`` asks for."""
        taps = blur_taps(tensors.sigma, geo.radius)
        units = unit_list(tensors.weight, tensors.mu, tensors.unit_ptr)
        grads = UnitGradients(units, needs, mu_gradient)
        maps = blurred_maps(tensors.input, taps, geo, derivatives=grads.by_maps) if grads.asked_for else None
        grad_blurred = torch.zeros_like(tensors.input) if needs.input or needs.sigma else None
        self.add_gradients(grad_output, maps, units, geo, grads, grad_blurred, compute)
        grad_input, grad_sigma = through_the_blur(grad_blurred, tensors, taps, geo, needs)
        return Gradients(grad_input, *grads.shaped_as(tensors), grad_sigma)

    @abstractmethod
    def outputs(self, blurred: Tensor, units: UnitList, geo: Geometry, compute: torch.dtype) -> Tensor:
        """Sums over the units of what they read of blurred images (N, C, H, W), without a bias: (N, O, *out_size)."""
        ...

    @abstractmethod
    def add_gradients(
        self,
        grad_output: Tensor,
        maps: Tensor | None,
        units: UnitList,
        geo: Geometry,
        grads: UnitGradients,
        grad_blurred: Tensor | None,
        compute: torch.dtype,
    ) -> None:
        """Add to ``grads`` those of the units and to ``grad_blurred``, zeros where it is asked for, the images'.

        Args:
            grad_output: gradient of the output.
            maps: as ``blurred_maps`` gives them; None where ``grads`` asks for nothing.
            units: all units.
            geo: sizes of the call.
            grads: of the units.
            grad_blurred: of the blurred images (N, C, H, W), or None.
            compute: as in ``Backend.forward``.
        """
        ...
