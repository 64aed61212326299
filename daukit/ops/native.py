"""The backend of the C++ kernels in daukit/csrc: float32 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import kept_taps
from daukit.ops.library import Layout, UnitArrays, array, at, blur, call, state
from daukit.ops.phases import Direct, phases, unstride
from daukit.ops.units import check_finite, check_pointers


class Native(Backend):
    """The C++ kernels; anything but float32 on the CPU goes to the dense path."""

    name = "native"
    convolves = False

    def state(self) -> str:
        """As ``Backend.state``."""
        return state()

    def supports(self, tensors: Tensors, geo: Geometry) -> bool:
        """As ``Backend.supports``."""
        return tensors.mu.dtype == torch.float32 and tensors.mu.device.type == "cpu"

    def check_values(self, tensors: Tensors) -> None:
        """As ``Backend.check_values``; the library finds displacements that are not finite in its own first pass."""
        check_pointers(tensors.weight, tensors.unit_ptr)

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """As ``Backend.forward``."""
        units = UnitArrays(tensors.weight, tensors.mu, tensors.unit_ptr)
        gaussian = kept_taps(tensors.sigma, geo.radius).gaussian
        bias = None if tensors.bias is None else array(tensors.bias)
        if tensors.input.numel() == 0:
            check_finite(units.mu)  # the library, which else finds NaN, is not called
        elif direct := Direct.of(units.mu, geo):
            if direct.mu is not units.mu:
                units = UnitArrays(tensors.weight, direct.mu, tensors.unit_ptr)
            return _run_direct(direct, units, tensors.input, gaussian, bias)
        output = tensors.input.new_empty(geo.batch, geo.out_channels, *geo.in_size)
        for phase in phases(geo):
            image = array(phase.take(tensors.input))
            part = output if phase.whole else image.new_empty(image.shape[0], geo.out_channels, *image.shape[2:])
            call("daukit_forward", layout(geo, image), units, at(gaussian), at(bias), at(image), at(part))
            if not phase.whole:
                phase.put(part, output)
        (sy, sx) = geo.stride
        return output[:, :, ::sy, ::sx]

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
        """As ``Backend.backward``; computes weight and mu together, the others where ``needs`` asks for them."""
        input, weight, mu, sigma, _, unit_ptr = tensors
        taps = kept_taps(sigma, geo.radius)
        units = UnitArrays(weight, mu, unit_ptr)
        error = unstride(grad_output, geo)
        grad_weight = torch.zeros_like(units.weight) if needs.weight or needs.mu else None
        grad_mu = torch.zeros_like(units.mu) if needs.weight or needs.mu else None
        grad_input = torch.empty_like(input, memory_format=torch.contiguous_format) if needs.input else None
        grad_sigma = torch.zeros_like(sigma) if needs.sigma else None
        for phase in phases(geo):
            image, part = array(phase.take(input)), array(phase.take(error))
            grad_blurred = torch.empty_like(image) if needs.input or needs.sigma else None
            if grad_weight is not None and grad_mu is not None:
                slope = taps.mu if needs.mu and mu_gradient == "gaussian" else None
                grads = torch.empty_like(grad_weight), torch.empty_like(grad_mu) if needs.mu else None
                pointers = [at(t) for t in (taps.gaussian, slope, part, image, grad_blurred, *grads)]
                call("daukit_backward", layout(geo, image), units, *pointers)
                grad_weight += grads[0]
                if grads[1] is not None:
                    grad_mu += grads[1]
            elif grad_blurred is not None:
                call("daukit_backward_image", layout(geo, image), units, at(part), at(grad_blurred))
            if grad_blurred is not None and grad_input is not None:
                # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
                blurred = grad_input if phase.whole else torch.empty_like(image)
                blur(grad_blurred, taps.gaussian, taps.gaussian, blurred)
                if not phase.whole:
                    phase.put(blurred, grad_input)
            if grad_blurred is not None and grad_sigma is not None:
                # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
                by_sigma = blur(image, taps.sigma, taps.gaussian) + blur(image, taps.gaussian, taps.sigma)
                grad_sigma += torch.dot(grad_blurred.flatten(), by_sigma.flatten())
        return Gradients(
            grad_input,
            None if grad_weight is None else grad_weight.reshape(weight.shape),
            None if grad_mu is None else grad_mu.reshape(mu.shape),
            grad_sigma,
        )


def _run_direct(direct: Direct, units: UnitArrays, input: Tensor, gaussian: Tensor, bias: Tensor | None) -> Tensor:
    image = direct.arrange(input, gaussian)
    output = image.new_empty(direct.geo.batch, direct.geo.out_channels, *direct.geo.out_size)
    call("daukit_forward", direct.layout(), units, at(gaussian), at(bias), at(image), at(output))
    return output


def layout(geo: Geometry, image: Tensor) -> Layout:
    """The layout of an undilated image of a layer, at stride 1."""
    return Layout(tuple(image.shape), geo.in_channels, geo.out_channels, geo.groups, geo.radius)
