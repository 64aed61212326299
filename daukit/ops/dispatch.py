"""The bodies of the registered operators: choose a backend by its name, check values, and let it compute."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from daukit.ops.choices import note
from daukit.ops.contract import Backend, GivenUp, Gradients, Needs, Tensors, backward_arguments, forward_arguments
from daukit.ops.cuda import (
    KERNELS,
    Cuda,
    Effort,
    Near,
    Way,
    backward_effort,
    cheapest,
    costs_of,
    drop,
    is_of_use,
    measured,
    worth_timing,
)
from daukit.ops.dense import Dense
from daukit.ops.geometry import Geometry
from daukit.ops.native import Native
from daukit.ops.precision import convolutions_as_allowed
from daukit.ops.reference import Reference
from daukit.ops.spectral import Spectral

Result = TypeVar("Result")

DENSE = Dense()
"""The backend that takes every call which another one does not support."""

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Reference(), DENSE, Native(), Spectral(), Cuda())}

NEAR: dict[Way, Backend] = {
    "dense": Near("dense", Dense()),
    "dense, channels last": Near("dense, channels last", Dense(torch.channels_last)),
    "spectral": Near("spectral", Spectral()),
}
"""What ``"auto"`` may choose on a GPU beside its kernels: filters, without waiting for it."""

WAYS: dict[Way, Backend] = {way: Cuda(rank) for rank, way in enumerate(KERNELS)} | NEAR
"""All that it may choose."""


@dataclass(frozen=True)
class Choice:
    """The backend that takes a call.

    Attributes:
        backend: of the call.
        compute: the lowest dtype in which it may form sums over channels.
        otherwise: chooses anew where it gives up; None where the dense path takes the call.
    """

    backend: Backend
    compute: torch.dtype
    otherwise: Callable[[], Choice] | None = None


def backends() -> dict[str, str]:
    """Every backend by name, each "available" or "unavailable: why"."""
    return {name: backend.state() for name, backend in BACKENDS.items()}


class Pass(NamedTuple):
    """A forward or a backward, as ways to compute it are chosen for it.

    Attributes:
        what: it is called where it was timed.
        effort: of it.
        run: runs it by a choice; None where no way may be timed.
    """

    what: str = "forward"
    effort: Effort = Effort()
    run: Callable[[Choice], object] | None = None


def resolve(name: str, tensors: Tensors, geo: Geometry, one: Pass = Pass()) -> Choice:  # noqa: B008 -- a constant
    """Choose the backend for a call.

    ``"auto"`` is the choice on a GPU, which depends on the card and so is made here, where torch.compile does not look.

    Args:
        name: of the backend.
        tensors: of the call.
        geo: sizes of the call.
        one: the pass.
    """
    backend = BACKENDS["cuda" if name == "auto" else name]
    if not backend.supports(tensors, geo):
        return Choice(DENSE, tensors.mu.dtype)
    if name != "auto":
        return Choice(backend, tensors.mu.dtype)
    costs = costs_of(tensors, geo, one.effort)
    times = None
    if one.run is not None and is_of_use(tensors.input.device):
        ways = {way: functools.partial(one.run, _choice(way, tensors)) for way in worth_timing(costs)}
        times = measured(tensors, geo, one.what, ways)
    way = cheapest(costs) if times is None else min(times, key=times.__getitem__)
    note(one.what, way, costs, times)
    if times is None:
        return _choice(way, tensors)

    def otherwise() -> Choice:
        drop(tensors, geo, one.what, way)
        return resolve(name, tensors, geo, one)

    return _choice(way, tensors, otherwise)


def _choice(way: Way, tensors: Tensors, otherwise: Callable[[], Choice] | None = None) -> Choice:
    """The backend of a way. Sums of filters may be formed in the input's dtype."""
    return Choice(WAYS[way], tensors.mu.dtype if way in KERNELS else tensors.input.dtype, otherwise)


def forward(*arguments: Any) -> Tensor:
    """``daukit::dau_conv2d``: the output, contiguous and in the input's dtype."""
    tensors, options = forward_arguments(arguments)
    geo = options.geometry(tensors)

    def run(backend: Backend, tensors: Tensors, compute: torch.dtype) -> Tensor:
        return backend.forward(tensors, geo, compute=compute)

    choice = resolve(options.backend, tensors, geo, Pass(run=lambda choice: _run_on(choice, tensors, run)))
    return _run(choice, tensors, run).to(tensors.input.dtype).contiguous()


def backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``daukit::dau_conv2d_backward``: contiguous gradients, empty where the mask asks for none."""
    grad_output, tensors, options, mask = backward_arguments(arguments)
    geo, needs = options.geometry(tensors), Needs(*mask[:4])

    def run(backend: Backend, tensors: Tensors, compute: torch.dtype) -> Gradients:
        error = grad_output.to(tensors.input.dtype)
        return backend.backward(
            error, tensors, geo, mu_gradient=options.mu_gradient, needs=needs, compute=compute
        )  # fmt: skip

    what = f"backward {options.mu_gradient} {''.join(str(int(one)) for one in needs)}"
    effort = backward_effort(needs, options.mu_gradient)
    choice = resolve(options.backend, tensors, geo, Pass(what, effort, lambda choice: _run_on(choice, tensors, run)))
    grads = _run(choice, tensors, run)
    grad_input, grad_weight, grad_mu, grad_sigma = (
        tensors.mu.new_empty(0) if grad is None or not needed else grad.contiguous()
        for grad, needed in zip(grads, needs, strict=True)
    )
    grad_bias = grad_output.to(tensors.mu.dtype).sum((0, 2, 3)) if mask[4] else tensors.mu.new_empty(0)
    return grad_input.to(tensors.input.dtype), grad_weight, grad_mu, grad_sigma, grad_bias


def _run(choice: Choice, tensors: Tensors, run: Callable[[Backend, Tensors, torch.dtype], Result]) -> Result:
    """Run a pass on the chosen backend, or where that gives up on the next best, in the end on the dense path."""
    choice.backend.check_values(tensors)
    try:
        return _run_on(choice, tensors, run)
    except GivenUp:
        if choice.otherwise is not None:
            return _run(choice.otherwise(), tensors, run)
        DENSE.check_values(tensors)
        return _run_on(Choice(DENSE, tensors.mu.dtype), tensors, run)


def _run_on(choice: Choice, tensors: Tensors, run: Callable[[Backend, Tensors, torch.dtype], Result]) -> Result:
    """Run a pass with the input's dtype and torch's settings as the backend wants them."""
    backend, compute = choice.backend, choice.compute
    if tensors.input.dtype != tensors.mu.dtype and not backend.takes_half:
        tensors = tensors._replace(input=tensors.input.to(tensors.mu.dtype))
    if not backend.convolves:
        return run(backend, tensors, compute)
    device = tensors.input.device
    with torch.autocast(device.type, enabled=False), convolutions_as_allowed(device):
        return run(backend, tensors, compute)
