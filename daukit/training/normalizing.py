"""Batch norms of several processes that learn together: statistics over the images of all of them.

torch's own ``SyncBatchNorm`` needs a GPU, and takes the place of the modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.distributed import Ranks

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def synchronized(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let all batch norms of ``model`` that are in training mode see the images of all processes inside the block.

    All processes must run the network equally often; one may do so on a batch of no images. Modules stay what they are:
    only how they are called changes, and a state dict or a checkpoint looks as it did.
    """
    norms = [] if ranks.is_alone else [module for module in model.modules() if isinstance(module, _KINDS)]
    for norm in norms:
        norm.forward = partial(_forward, norm, ranks)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the one of its class is there again


def _forward(norm: Any, ranks: Ranks, inputs: Tensor) -> Tensor:
    """What ``norm`` makes of ``inputs`` (N, C, ...), as its class documents it."""
    if not norm.training:
        return type(norm).forward(norm, inputs)  # type: ignore[no-any-return]
    outputs, mean, variance, count = _Normalized.apply(inputs, norm.weight, norm.bias, norm.eps, ranks)
    if norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
    return outputs  # type: ignore[no-any-return]


class _Normalized(torch.autograd.Function):
    """Normalised inputs, with mean, variance and number of the values of each channel in all processes."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks) -> Any:
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        number = values.new_tensor([inputs.numel() // max(1, inputs.shape[1])])
        total, count = ranks.add(torch.cat([values.sum(axes), number])).split([inputs.shape[1], 1])
        mean = total / count
        # The variance about the common mean, in a second pass: a difference of large sums would lose its digits.
        variance = ranks.add((values - _like(mean, values)).square().sum(axes)) / count
        factors = None if weight is None else weight.to(values.dtype)
        offsets = None if bias is None else bias.to(values.dtype)
        outputs = F.batch_norm(values, mean, variance, factors, offsets, False, 0.0, eps)
        ctx.save_for_backward(values, mean, (variance + eps).rsqrt(), factors, count)
        ctx.axes, ctx.ranks, ctx.dtype = axes, ranks, inputs.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        return outputs.to(inputs.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, mean, scale, factors, count = ctx.saved_tensors
        grad = grads[0].to(values.dtype)
        normal = (values - _like(mean, values)) * _like(scale, values)
        grad_bias, grad_weight = grad.sum(ctx.axes), (grad * normal).sum(ctx.axes)  # of this process's images
        along, across = (ctx.ranks.add(torch.cat([grad_bias, grad_weight])) / count).chunk(2)
        grad_inputs = (grad - _like(along, values) - normal * _like(across, values)) * _like(
            scale if factors is None else scale * factors, values
        )
        ours = (None, None) if factors is None else (grad_weight, grad_bias)
        return grad_inputs.to(ctx.dtype), *ours, None, None


def _like(of_channels: Tensor, values: Tensor) -> Tensor:
    return of_channels.reshape(1, -1, *[1] * (values.dim() - 2))
