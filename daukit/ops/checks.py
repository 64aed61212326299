"""Checks of the operator's arguments, made once at the public doors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def pair(name: str, value: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """An argument for both axes as (y, x), of integers that are at least ``least``, 1 or 0."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(_is_integer(one) and one >= least for one in both):
        # A wrong type is the caller's as much as a wrong value, but has an exception of its own.
        error = ValueError if all(_is_integer(one) for one in both) else TypeError
        kind = "a positive integer" if least else "an integer of at least 0"
        raise error(f"{name} must be {kind} or two of them, got {value!r}")
    return both[0], both[1]


def check_integer(name: str, value: object) -> None:
    """Raise where an argument is no integer; True is none, though Python counts with it."""
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")


def check_number(name: str, value: object, otherwise: str = "") -> None:
    """Raise where an argument is no number; ``otherwise`` says what else it may be."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number{otherwise}, got {type(value).__name__} {value!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


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
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    bias: Tensor | None,
    groups: int,
    unit_ptr: Tensor | None,
    out_channels: int | None = None,
) -> None:
    """Raise where shapes, channels or groups disagree."""
    if input.dim() != 4:
        raise ValueError(
            f"input must be (batch, in_channels, height, width), got shape {tuple(input.shape)}"
            + ("; give one image a batch by image[None]" if input.dim() == 3 else "")
        )
    if bias is not None and bias.dim() != 1:
        raise ValueError(f"bias must be (out_channels,), got {tuple(bias.shape)}")
    check_integer("groups", groups)
    if out_channels is not None:
        check_integer("out_channels", out_channels)
    in_channels = input.shape[1]
    if groups < 1 or in_channels < 1 or in_channels % groups:
        raise ValueError(f"in_channels ({in_channels}) must be a positive multiple of groups ({groups})")
    if unit_ptr is None:
        outputs = _dense_outputs(weight, in_channels, groups)
    else:
        known = bias.shape[0] if out_channels is None and bias is not None else out_channels
        outputs = _ragged_outputs(weight, unit_ptr, in_channels, groups, known)
    if mu.shape != (2, *weight.shape):
        raise ValueError(f"mu must be (2, *weight.shape) = {(2, *weight.shape)}, got {tuple(mu.shape)}")
    if outputs < 1 or outputs % groups:
        raise ValueError(f"out_channels ({outputs}) must be a positive multiple of groups ({groups})")
    if out_channels is not None and outputs != out_channels:
        raise ValueError(f"out_channels is {out_channels}, but weight {tuple(weight.shape)} has {outputs}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias must be (out_channels,) = ({outputs},), got {tuple(bias.shape)}")


def _dense_outputs(weight: Tensor, in_channels: int, groups: int) -> int:
    """The output channels of dense units."""
    if weight.dim() != 3:
        raise ValueError(
            f"weight must be (out_channels, in_channels / groups, units), got {tuple(weight.shape)}; "
            "ragged units need unit_ptr"
        )
    if weight.shape[1] * groups != in_channels:
        raise ValueError(
            f"the weight takes {weight.shape[1] * groups} channels, got {in_channels}; it is {tuple(weight.shape)}, "
            f"in {groups} groups"
        )
    return weight.shape[0]


def _ragged_outputs(weight: Tensor, unit_ptr: Tensor, in_channels: int, groups: int, known: int | None) -> int:
    """The output channels of ragged units: those that are ``known``, or what the input's channels leave."""
    if weight.dim() != 1 or unit_ptr.dim() != 1 or unit_ptr.dtype != torch.int32:
        raise ValueError(
            "ragged units need weight (total_units,) and unit_ptr (pairs + 1,) int32, "
            f"got {tuple(weight.shape)} and {tuple(unit_ptr.shape)} {unit_ptr.dtype}"
        )
    pairs, inputs = unit_ptr.shape[0] - 1, in_channels // groups
    if known is None:
        if pairs < 1 or pairs % inputs:
            raise ValueError(
                f"unit_ptr has {pairs} pairs, which is not out_channels times in_channels / groups ({inputs})"
            )
        return pairs // inputs
    if known < 1 or pairs < 1 or pairs % known:
        raise ValueError(f"unit_ptr has {pairs} pairs, which is no multiple of out_channels ({known})")
    if pairs // known != inputs:
        raise ValueError(
            f"the units take {pairs // known * groups} channels, got {in_channels}; unit_ptr has {pairs} pairs for "
            f"{known} output channels in {groups} groups"
        )
    return known


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
