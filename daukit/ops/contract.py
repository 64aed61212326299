"""The contract between the operator and its backends: arguments, results, and the protocol of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from daukit.ops.geometry import Geometry
from daukit.ops.units import check_finite, check_pointers


class Tensors(NamedTuple):
    """The tensors of a call, shaped as in ``dau_conv2d``, in the order of the operator's schema.

    A backward has no ``bias``: its gradient is the sum of the output gradient, whatever the backend.
    """

    input: Tensor
    weight: Tensor
    mu: Tensor
    sigma: Tensor
    bias: Tensor | None
    unit_ptr: Tensor | None


class Options(NamedTuple):
    """The arguments after the tensors in the operator's schema, in its order; all are static for ``torch.compile``."""

    radius: int
    stride: Sequence[int]
    dilation: Sequence[int]
    groups: int
    limit: int
    mu_gradient: str
    backend: str
    whole_pixels: bool = False

    def geometry(self, tensors: Tensors) -> Geometry:
        """Sizes of a call with these tensors."""
        return Geometry.of(
            tensors.input,
            tensors.weight,
            tensors.unit_ptr,
            radius=self.radius,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            limit=self.limit,
        )


class Needs(NamedTuple):
    """True for each gradient that is asked for."""

    input: bool
    weight: bool
    mu: bool
    sigma: bool


class Gradients(NamedTuple):
    """Gradients, each shaped as its tensor. Where none was asked for, the value is ignored."""

    input: Tensor | None
    weight: Tensor | None
    mu: Tensor | None
    sigma: Tensor | None


class GivenUp(Exception):  # noqa: N818 -- not an error: the dense path takes the call
    """A backend found during a call that it cannot run here, at all (it has warned) or in this way."""


class Backend(Protocol):
    """One way to compute the operator. A backend that has no use for an argument ignores it.

    Attributes:
        name: by which ``daukit.backend`` and the operator's schema know it.
        convolves: True where it uses torch's convolutions, which must then run without autocast and unasked TF32.
        takes_half: True where it takes images in float16 or bfloat16. Others get them in the dtype of the parameters:
            displacements need its digits, and sums its range.
    """

    name: str
    convolves: bool = True
    takes_half: bool = False

    def state(self) -> str:
        """``"available"`` or ``"unavailable: why"``."""
        return "available"

    def supports(self, tensors: Tensors, geo: Geometry) -> bool:
        """True for dtypes, devices and sizes that the backend takes; all other calls go to the dense path."""
        return True

    def check_values(self, tensors: Tensors) -> None:
        """Raise where values break a rule, unless the backend finds it while it computes.

        Raises:
            ValueError: unit pointers do not add up, or a displacement is not finite.
        """
        check_pointers(tensors.weight, tensors.unit_ptr)
        check_finite(tensors.mu)

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """The output, ``(batch, out_channels, *geo.out_size)``, in any dtype and layout.

        Args:
            tensors: of the call.
            geo: sizes of the call.
            compute: the lowest dtype in which sums over channels may be formed, the parameters' or the input's.

        Raises:
            GivenUp: the backend cannot run here after all.
        """
        ...

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
        """Gradients for input, weight, mu and sigma (Eq. 15, 16, 8 and the adjoint of the forward).

        Args:
            grad_output: gradient of the output, in the dtype of ``tensors.input``.
            tensors: of the forward, without a bias.
            geo: sizes of the call.
            mu_gradient: ``"gaussian"`` or ``"exact"``.
            needs: the gradients that are asked for.
            compute: as in ``forward``.

        Raises:
            GivenUp: the backend cannot run here after all.
        """
        ...


def forward_arguments(arguments: Sequence[Any]) -> tuple[Tensors, Options]:
    """The arguments of ``daukit::dau_conv2d`` by name."""
    return Tensors(*arguments[:6]), Options(*arguments[6:])


def backward_arguments(arguments: Sequence[Any]) -> tuple[Tensor, Tensors, Options, list[bool]]:
    """The arguments of ``daukit::dau_conv2d_backward`` by name.

    The last ones say whose gradients are asked for: of input, weight, mu, sigma and bias. In the schema they come
    before the options that have a default.
    """
    grad_output, input, weight, mu, sigma, unit_ptr = arguments[:6]
    tensors = Tensors(input, weight, mu, sigma, None, unit_ptr)
    return grad_output, tensors, Options(*arguments[6:13], *arguments[14:]), arguments[13]
