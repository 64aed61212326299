"""The two registered operators, ``daukit::dau_conv2d`` and its backward: schemas, shapes and autograd.

What they compute is in ``dispatch.py``. The arguments are those of ``contract.Tensors`` and ``contract.Options``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daukit.ops import dispatch
from daukit.ops.contract import backward_arguments, forward_arguments

# `reach` is the limit of displacements: a name that programs which were exported may have.
_OPTIONS = "int radius, int[2] stride, int[2] dilation, int groups, int reach, str mu_gradient, str backend"
_DEFAULTS = "bool whole_pixels=False"  # such programs lack it
torch.library.define(
    "daukit::dau_conv2d",
    "(Tensor input, Tensor weight, Tensor mu, Tensor sigma, Tensor? bias, Tensor? unit_ptr, "
    f"{_OPTIONS}, {_DEFAULTS}) -> Tensor",
)
torch.library.define(
    "daukit::dau_conv2d_backward",
    "(Tensor grad_output, Tensor input, Tensor weight, Tensor mu, Tensor sigma, Tensor? unit_ptr, "
    f"{_OPTIONS}, bool[5] output_mask, {_DEFAULTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl("daukit::dau_conv2d", "default", dispatch.forward)
torch.library.impl("daukit::dau_conv2d_backward", "default", dispatch.backward)


@torch.library.register_fake("daukit::dau_conv2d")
def _forward_fake(*arguments: Any) -> Tensor:
    tensors, options = forward_arguments(arguments)
    geo = options.geometry(tensors)
    return tensors.input.new_empty(geo.batch, geo.out_channels, *geo.out_size)


@torch.library.register_fake("daukit::dau_conv2d_backward")
def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    grad_output, tensors, _, mask = backward_arguments(arguments)
    grads = [t.new_empty(t.shape if needed else 0) for t, needed in zip(tensors[:4], mask, strict=False)]
    return (*grads, tensors.mu.new_empty(grad_output.shape[1] if mask[4] else 0))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, mu, sigma, _, unit_ptr, *options = inputs
    ctx.save_for_backward(input, weight, mu, sigma, unit_ptr)
    ctx.options = options


def _autograd(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    mask = list(ctx.needs_input_grad[:5])
    options, defaults = ctx.options[:7], ctx.options[7:]
    grads = torch.ops.daukit.dau_conv2d_backward(grad_output, *ctx.saved_tensors, *options, mask, *defaults)
    masked = [grad if needed else None for grad, needed in zip(grads, mask, strict=True)]
    return (*masked, *[None] * (1 + len(ctx.options)))


torch.library.register_autograd("daukit::dau_conv2d", _autograd, setup_context=_save_for_backward)


def _nothing_to_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("dau_conv2d has no second derivative: call backward or grad without create_graph=True")


torch.library.register_autograd("daukit::dau_conv2d_backward", _refuse_double_backward, setup_context=_nothing_to_save)
