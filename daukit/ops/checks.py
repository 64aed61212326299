"""Checks of the operator's arguments, made once at the public doors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """An argument for both axes as (y, x)."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f"{name} must be a positive integer or two of them, got {value!r}")
    return both[0], both[1]


def check_tensors(input: Tensor, weight: Tensor, mu: Tensor, bias: Tensor | None, unit_ptr: Tensor | None) -> None:
    """Raise where an argument is no tensor, or on another device, or of a dtype that does not go with the others."""
    named = {"input": input, "weight": weight, "mu": mu, "bias": bias, "unit_ptr": unit_ptr}
    for name, tensor in named.items():
        if tensor is None and name in ("bias", "unit_ptr"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device} but input is on {input.device}; move one of them")
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"weight must be float32 or float64, got {weight.dtype}; only the input may be half or bfloat16"
        )
    for name, tensor in (("mu", mu), ("bias", bias)):
        if tensor is not None and tensor.dtype != weight.dtype:
            raise ValueError(f"{name} ({tensor.dtype}) must have the dtype of weight ({weight.dtype})")
    if input.dtype not in (weight.dtype, torch.float16, torch.bfloat16):
        raise ValueError(
            f"input ({input.dtype}) must have the dtype of weight ({weight.dtype}), or be half or bfloat16"
        )


def check_shapes(
    input: Tensor, weight: Tensor, mu: Tensor, bias: Tensor | None, groups: int, unit_ptr: Tensor | None
) -> None:
    """Raise where shapes, channels or groups disagree."""
    if input.dim() != 4:
        raise ValueError(f"input must be (batch, in_channels, height, width), got shape {tuple(input.shape)}")
    in_channels = input.shape[1]
    if groups < 1 or in_channels < 1 or in_channels % groups:
        raise ValueError(f"in_channels ({in_channels}) must be divisible by groups ({groups})")
    inputs = in_channels // groups
    if unit_ptr is None:
        if weight.dim() != 3 or weight.shape[1] != inputs:
            raise ValueError(
                f"weight must be (out_channels, {inputs}, units) for in_channels {in_channels} and groups {groups}, "
                f"got {tuple(weight.shape)}; ragged units need unit_ptr"
            )
        out_channels = weight.shape[0]
    else:
        if weight.dim() != 1 or unit_ptr.dim() != 1 or unit_ptr.dtype != torch.int32:
            raise ValueError(
                "ragged units need weight (total_units,) and unit_ptr (pairs + 1,) int32, "
                f"got {tuple(weight.shape)} and {tuple(unit_ptr.shape)} {unit_ptr.dtype}"
            )
        pairs = unit_ptr.shape[0] - 1
        if pairs < 1 or pairs % inputs:
            raise ValueError(
                f"unit_ptr has {pairs} pairs, which is not out_channels times in_channels / groups ({inputs})"
            )
        out_channels = pairs // inputs
    if mu.shape != (2, *weight.shape):
        raise ValueError(f"mu must be (2, *weight.shape) = {(2, *weight.shape)}, got {tuple(mu.shape)}")
    if out_channels < 1 or out_channels % groups:
        raise ValueError(f"out_channels ({out_channels}) must be divisible by groups ({groups})")
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"bias must be (out_channels,) = ({out_channels},), got {tuple(bias.shape)}")


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Forward-mode AD and functorch would silently give wrong derivatives, so they stop here."""
    if torch.compiler.is_compiling():
        return
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError("dau_conv2d does not support torch.func transforms (grad, vmap, jvp); use torch.autograd")
    if forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    ):
        raise RuntimeError(
            "dau_conv2d does not support forward-mode AD; use reverse mode (backward, torch.autograd.grad)"
        )
