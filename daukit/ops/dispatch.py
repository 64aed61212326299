"""From a backend's name to what runs: which module takes a call, what is checked first, and what steps in for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from daukit.errors import CudaUnavailableError
from daukit.ops import cuda, dense, native, reference
from daukit.ops.geometry import Geometry
from daukit.ops.precision import convolutions_as_allowed
from daukit.ops.units import assert_pointers, check_finite, check_pointers

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class Path(NamedTuple):
    """The module that takes a call, and the dtype of the dense path's convolutions (None: the parameters')."""

    module: Any
    compute: torch.dtype | None = None


def backends() -> dict[str, str]:
    """Every backend by name, each "available" or "unavailable: why"."""
    return {"reference": "available", "dense": "available", "native": native.state(), "cuda": cuda.state()}


def resolve(backend: str, input: Tensor, weight: Tensor, mu: Tensor, geo: Geometry) -> Path:
    """Who takes a call.

    Compiled kernels are float32 on their own devices: anything else takes the dense path. ``"auto"`` is the choice on a
    GPU, which depends on the card and so is made here, where torch.compile does not look.
    """
    if backend in ("cuda", "auto") and cuda.supports(mu.device, mu.dtype, geo):
        if backend == "cuda" or not cuda.prefers_dense(geo, input, weight, mu):
            return Path(cuda)
        return Path(dense, None if input.dtype == mu.dtype else input.dtype)
    if backend == "native" and mu.dtype == torch.float32 and mu.device.type == "cpu":
        return Path(native)
    return Path(reference if backend == "reference" else dense)


def forward(
    backend: str,
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    bias: Tensor | None,
    unit_ptr: Tensor | None,
    geo: Geometry,
) -> Tensor:
    """The output, contiguous and in the input's dtype."""
    path = resolve(backend, input, weight, mu, geo)
    _check_values(weight, mu, unit_ptr, path.module)
    if path.module is cuda:
        try:
            return cuda.forward(input, weight, mu, sigma, bias, unit_ptr, geo)
        except CudaUnavailableError as why:
            cuda.give_up(why)
            path = Path(dense)
    options = (path.compute,) if path.module is dense else ()
    # Half-precision inputs are computed in the parameters' dtype: displacements need its digits, sums its range.
    with torch.autocast(input.device.type, enabled=False), convolutions_as_allowed(input.device):
        output: Tensor = path.module.forward(input.to(mu.dtype), weight, mu, sigma, bias, unit_ptr, geo, *options)
    return output.to(input.dtype).contiguous()


def backward(
    backend: str,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    unit_ptr: Tensor | None,
    geo: Geometry,
    mu_gradient: str,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """Gradients for input, weight, mu and sigma, those that ``needs`` asks for; any dtype."""
    path = resolve(backend, input, weight, mu, geo)
    _check_values(weight, mu, unit_ptr, path.module)
    parameters = weight, mu, sigma, unit_ptr, geo, mu_gradient
    if path.module is cuda:
        try:
            return cuda.backward(grad_output.to(input.dtype), input, *parameters, needs)
        except CudaUnavailableError as why:
            cuda.give_up(why)
            path = Path(dense)
    options = {reference: (), dense: (needs, path.compute), native: (needs,)}[path.module]
    with torch.autocast(input.device.type, enabled=False), convolutions_as_allowed(input.device):
        grads: Gradients = path.module.backward(grad_output.to(mu.dtype), input.to(mu.dtype), *parameters, *options)
    return grads


def _check_values(weight: Tensor, mu: Tensor, unit_ptr: Tensor | None, module: Any) -> None:
    """What depends on values is checked before any backend runs, except what would make the host wait for a GPU.

    There wrong pointers fail on the device, and displacements that are not finite make NaN of what they touch. The
    native backend looks for them in its own first pass.
    """
    (assert_pointers if mu.is_cuda and module is cuda else check_pointers)(weight, unit_ptr)
    if module not in (cuda, native):
        check_finite(mu)
