"""The gate that every tensor of a file passes: what enters is a plain array in memory, of a type that networks hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from daukit.errors import CheckpointError
from daukit.limits import in_short

MAX_DIMENSIONS = 8

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)
"""For counters and indices: nothing that is learned is of these types."""


def checked(tensor: Tensor, name: str, path: Path | str) -> Tensor:
    """``tensor`` itself, without its gradient's history, if it may enter.

    Raises:
        CheckpointError: it is sparse, quantised, nested, without values, of a type that no network computes with, of
            more than ``MAX_DIMENSIONS`` dimensions, or says to be larger than the memory that it holds.
    """
    _refuse(_fault(tensor), name, path)
    return tensor.detach()


def check_described(dtype: torch.dtype, dimensions: int, name: str, path: Path | str) -> None:
    """As ``checked``, of a tensor whose values are not read."""
    _refuse(_fault_of_type(dtype) or _fault_of_shape(dimensions), name, path)


def check_all(tensors: Mapping[object, object], path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, each of them ``checked``.

    Raises:
        CheckpointError: a name is no text, a value is no tensor, or ``checked`` refuses one.
    """
    result = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: a state dict's names are texts, and {in_short(name)} is none")
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {in_short(name)} is a {type(tensor).__name__}, not a tensor")
        result[name] = checked(tensor, name, path)
    return result


def _refuse(fault: str, name: str, path: Path | str) -> None:
    if fault:
        raise CheckpointError(
            f"{path}: {name} is {fault}; daukit reads dense float16, bfloat16, float32 and float64 tensors (and whole "
            "numbers for counters): convert it, as by .to_dense().float(), and save again"
        )


def _fault(tensor: Tensor) -> str:
    # In this order: quantised and nested tensors call themselves strided, and have no shape or storage to ask.
    if tensor.is_nested:
        return "nested"
    if fault := _fault_of_type(tensor.dtype):
        return fault
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.device.type != "cpu":
        return "without values" if tensor.is_meta else f"on {tensor.device}"
    if fault := _fault_of_shape(tensor.dim()):
        return fault
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"of shape {in_short(tuple(tensor.shape))} in {tensor.untyped_storage().nbytes()} bytes"
    return ""


def _fault_of_type(dtype: torch.dtype) -> str:
    return "" if dtype in (*FLOATS, *WHOLES) else str(dtype).removeprefix("torch.")


def _fault_of_shape(dimensions: int) -> str:
    return "" if dimensions <= MAX_DIMENSIONS else f"of {dimensions} dimensions, more than {MAX_DIMENSIONS},"
