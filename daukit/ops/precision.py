"""The precision of float32 convolutions on GPUs: TF32 only where the caller allowed it for products of matrices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class _Switch:
    """One of torch's settings, by its name since 2.9 where torch has it: never both names, which torch then refuses."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._name = "allow_tf32" if getattr(owner, "fp32_precision", None) is None else "fp32_precision"

    def read(self) -> str | bool:
        value: str | bool = getattr(self._owner, self._name)
        return value

    def write(self, value: str | bool) -> None:
        setattr(self._owner, self._name, value)

    def is_on(self) -> bool:
        return self.read() in ("tf32", True)

    def turn(self, on: bool) -> None:
        self.write(on if self._name == "allow_tf32" else "tf32" if on else "ieee")


class _Change:
    """A setting of the process as some threads need it for a while: the first one changes it, the last restores it."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: str | bool | None = None

    @contextmanager
    def hold(self, switch: _Switch, on: bool) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and switch.is_on() != on:
                self._before = switch.read()
                switch.turn(on)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._before is not None:
                    switch.write(self._before)
                    self._before = None


_convolutions = _Change()
_matrices = _Change()


def tf32_allowed() -> bool:
    """True if torch's setting for products of matrices lets tensor cores round float32 to 10 bits of fraction.

    Torch's other setting, for convolutions, is on by default, so it does not tell what the caller wants.
    """
    return _Switch(torch.backends.cuda.matmul).is_on()


@contextmanager
def convolutions_as_allowed(device: torch.device) -> Iterator[None]:
    """Inside the block convolutions on ``device`` use TF32 only where ``tf32_allowed``.

    The setting is the process's, as in torch: it is left alone where no GPU is involved or where it is as it should be,
    and threads that are inside at the same time share one change.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn  # its settings have no annotations
    with _convolutions.hold(_Switch(getattr(cudnn, "conv", cudnn)), tf32_allowed()):
        yield


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Inside the block TF32 is allowed, or forbidden, for convolutions and for products of matrices on ``device``."""
    if device.type != "cuda":
        yield
        return
    with _matrices.hold(_Switch(torch.backends.cuda.matmul), allowed), convolutions_as_allowed(device):
        yield
