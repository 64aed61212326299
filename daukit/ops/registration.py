"""The two registered operators, ``daukit::dau_conv2d`` and its backward, which pass each call on to a backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daukit.ops import dispatch
from daukit.ops.geometry import Geometry

_SIZES = "int radius, int[2] stride, int[2] dilation, int groups, int reach, str mu_gradient, str backend"
torch.library.define(
    "daukit::dau_conv2d",
    f"(Tensor input, Tensor weight, Tensor mu, Tensor sigma, Tensor? bias, Tensor? unit_ptr, {_SIZES}) -> Tensor",
)
torch.library.define(
    "daukit::dau_conv2d_backward",
    "(Tensor grad_output, Tensor input, Tensor weight, Tensor mu, Tensor sigma, Tensor? unit_ptr, "
    f"{_SIZES}, bool[5] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("daukit::dau_conv2d", "default")
def _forward(
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    bias: Tensor | None,
    unit_ptr: Tensor | None,
    radius: int,
    stride: list[int],
    dilation: list[int],
    groups: int,
    reach: int,
    mu_gradient: str,
    backend: str,
) -> Tensor:
    geo = Geometry.of(
        input, weight, unit_ptr, radius=radius, stride=stride, dilation=dilation, groups=groups, reach=reach
    )
    return dispatch.forward(backend, input, weight, mu, sigma, bias, unit_ptr, geo)


@torch.library.register_fake("daukit::dau_conv2d")
def _forward_fake(
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    bias: Tensor | None,
    unit_ptr: Tensor | None,
    radius: int,
    stride: list[int],
    dilation: list[int],
    groups: int,
    reach: int,
    mu_gradient: str,
    backend: str,
) -> Tensor:
    geo = Geometry.of(
        input, weight, unit_ptr, radius=radius, stride=stride, dilation=dilation, groups=groups, reach=reach
    )
    return input.new_empty(geo.batch, geo.out_channels, *geo.out_size)


@torch.library.impl("daukit::dau_conv2d_backward", "default")
def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    unit_ptr: Tensor | None,
    radius: int,
    stride: list[int],
    dilation: list[int],
    groups: int,
    reach: int,
    mu_gradient: str,
    backend: str,
    output_mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    geo = Geometry.of(
        input, weight, unit_ptr, radius=radius, stride=stride, dilation=dilation, groups=groups, reach=reach
    )
    needs_input, needs_weight, needs_mu, needs_sigma, needs_bias = output_mask
    needs = needs_input, needs_weight, needs_mu, needs_sigma
    grads = dispatch.backward(backend, grad_output, input, weight, mu, sigma, unit_ptr, geo, mu_gradient, needs)
    grad_input, grad_weight, grad_mu, grad_sigma = (
        mu.new_empty(0) if grad is None or not needed else grad.contiguous()
        for grad, needed in zip(grads, needs, strict=True)
    )
    grad_bias = grad_output.to(mu.dtype).sum((0, 2, 3)) if needs_bias else mu.new_empty(0)
    return grad_input.to(input.dtype), grad_weight, grad_mu, grad_sigma, grad_bias


@torch.library.register_fake("daukit::dau_conv2d_backward")
def _backward_fake(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    unit_ptr: Tensor | None,
    radius: int,
    stride: list[int],
    dilation: list[int],
    groups: int,
    reach: int,
    mu_gradient: str,
    backend: str,
    output_mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor, needed: bool) -> Tensor:
        return tensor.new_empty(tensor.shape if needed else 0)

    grads = [like(t, needed) for t, needed in zip((input, weight, mu, sigma), output_mask, strict=False)]
    grad_bias = mu.new_empty(grad_output.shape[1] if output_mask[4] else 0)
    return grads[0], grads[1], grads[2], grads[3], grad_bias


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, mu, sigma, _, unit_ptr, *options = inputs
    ctx.save_for_backward(input, weight, mu, sigma, unit_ptr)
    ctx.options = options


def _autograd(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    mask = list(ctx.needs_input_grad[:5])
    grads = torch.ops.daukit.dau_conv2d_backward(grad_output, *ctx.saved_tensors, *ctx.options, mask)
    masked = [grad if needed else None for grad, needed in zip(grads, mask, strict=True)]
    return (*masked, *[None] * (1 + len(ctx.options)))


torch.library.register_autograd("daukit::dau_conv2d", _autograd, setup_context=_save_for_backward)


def _nothing_to_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("dau_conv2d has no second derivative: call backward or grad without create_graph=True")


torch.library.register_autograd("daukit::dau_conv2d_backward", _refuse_double_backward, setup_context=_nothing_to_save)
