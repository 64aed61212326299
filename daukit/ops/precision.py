"""The precision of float32 convolutions on GPUs: TF32 only where the caller allowed it for products of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def tf32_allowed() -> bool:
    """Whether torch's setting for products of matrices lets tensor cores round float32 to 10 bits of fraction.

    Torch has a second setting for convolutions, which is on by default: nobody asked for it.
    """
    matmul = torch.backends.cuda.matmul
    try:
        return bool(matmul.fp32_precision == "tf32")
    except AttributeError:  # torch before 2.9
        return bool(matmul.allow_tf32)


@contextmanager
def convolutions_as_allowed() -> Iterator[None]:
    """Inside the block convolutions use TF32 only where ``tf32_allowed``; the setting is the process's, as in torch."""
    allowed = tf32_allowed()
    cudnn: Any = torch.backends.cudnn  # its settings have no annotations
    try:
        before = cudnn.conv.fp32_precision
    except AttributeError:  # torch before 2.9
        previous, cudnn.allow_tf32 = cudnn.allow_tf32, allowed
        try:
            yield
        finally:
            cudnn.allow_tf32 = previous
        return
    cudnn.conv.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before
