"""The shared library of daukit/csrc through ctypes, which checks nothing: every tensor is checked here first."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.ops.units import check_finite

ABI_VERSION = 3
"""Version of the C interface that this file speaks: ``DAUKIT_ABI_VERSION`` of daukit/csrc/daukit.h."""


_NOT_FINITE = 2  # of daukit_status


class _Sizes(ctypes.Structure):
    names = (
        *("batch", "in_channels", "out_channels", "groups", "height", "width"),
        *("stride_y", "stride_x", "units", "radius", "threads"),
    )
    _fields_ = [(name, ctypes.c_int64) for name in names]  # noqa: RUF012 -- ctypes wants a list


class _Units(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "mu_y", "mu_x", "unit_ptr")]  # noqa: RUF012


@functools.cache
def load() -> ctypes.CDLL:
    """The shared library, loaded on first use: after torch, so that both share one OpenMP runtime.

    Raises:
        OSError: there is none, or it cannot be loaded, or it is of another version.
    """
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    # An editable install has Python files in the checkout and the library in site-packages: both are on the path.
    folders = [Path(folder) for folder in sys.modules["daukit"].__path__]
    found = [folder / f"libdaukit{suffix}" for folder in folders if (folder / f"libdaukit{suffix}").is_file()]
    if not found:
        raise OSError("its library was not built; install a C++ compiler, then daukit again (pip install .)")
    loaded = ctypes.CDLL(str(found[0]))
    try:
        version = loaded.daukit_abi_version()
    except AttributeError:
        version = "unknown"
    if version != ABI_VERSION:
        raise OSError(f"{found[0]} has interface version {version}, not {ABI_VERSION}; install daukit again")
    loaded.daukit_instruction_set.restype = ctypes.c_char_p
    loaded.daukit_use_reach.argtypes, loaded.daukit_use_reach.restype = [ctypes.c_int64], None
    loaded.daukit_measure_peak.restype = ctypes.c_double
    loaded.daukit_measure_peak.argtypes = [ctypes.c_int64]
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    call: list[Any] = [ctypes.POINTER(_Sizes), ctypes.POINTER(_Units)]
    loaded.daukit_forward.argtypes = [*call, *[pointer] * 4]
    loaded.daukit_backward_image.argtypes = [*call, *[pointer] * 2]
    loaded.daukit_backward.argtypes = [*call, *[pointer] * 7]
    loaded.daukit_plan.argtypes = [*call, pointer, ctypes.POINTER(pointer)]
    loaded.daukit_plan_run.argtypes = [pointer, size, pointer, ctypes.c_int32, pointer, pointer]
    loaded.daukit_plan_bytes.argtypes, loaded.daukit_plan_bytes.restype = [pointer], size
    loaded.daukit_plan_free.argtypes, loaded.daukit_plan_free.restype = [pointer], None
    loaded.daukit_blur.argtypes = [*[size] * 4, *[pointer] * 4, size]
    return loaded


def state() -> str:
    """``"available"`` or ``"unavailable: why"``."""
    try:
        load()
    except OSError as error:
        return f"unavailable: {error}"
    return "available"


def instruction_set() -> str:
    """The kernels that run here: ``"avx512"``, ``"avx2"`` or ``"generic"``."""
    name: bytes = load().daukit_instruction_set()
    return name.decode()


def peak() -> float:
    """Measured fused multiply-adds per second of all of torch's threads, in registers."""
    return float(load().daukit_measure_peak(torch.get_num_threads()))


def array(tensor: Tensor) -> Tensor:
    """The tensor as the library wants it: on the CPU, float32 or int32, contiguous."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.int32):
        raise ValueError(
            f"the native backend takes float32 tensors on the CPU, got {tensor.dtype} on {tensor.device}; "
            'leave the choice of the backend to daukit, or use backend("dense")'
        )
    return tensor.detach().contiguous()


def at(tensor: Tensor | None) -> int | None:
    """The address of a tensor's numbers."""
    return None if tensor is None else tensor.data_ptr()


class UnitArrays:
    """All units as flat arrays, which live as long as this object."""

    def __init__(self, weight: Tensor, mu: Tensor, unit_ptr: Tensor | None):
        self.weight, self.mu = array(weight).reshape(-1), array(mu).reshape(2, -1)
        self.unit_ptr = None if unit_ptr is None else array(unit_ptr)
        self.per_pair = weight.shape[2] if unit_ptr is None else 0
        self.struct = _Units(at(self.weight), at(self.mu[0]), at(self.mu[1]), at(self.unit_ptr))


@dataclass(frozen=True)
class Layout:
    """Images as the library takes them, at dilation 1.

    Attributes:
        shape: of the images: (N, C, H, W); of a strided layer (N, C * stride_y * stride_x, H, W), its phases.
        channels: input channels, without phases.
        out_channels, groups: of the layer.
        radius: of the blur, in taps.
        stride: (y, x); with a stride all units must lie at whole pixels.
    """

    shape: tuple[int, ...]
    channels: int
    out_channels: int
    groups: int
    radius: int
    stride: tuple[int, int] = (1, 1)

    def sizes(self, units: UnitArrays) -> _Sizes:
        """The C structure."""
        batch, _, height, width = self.shape
        sizes = (batch, self.channels, self.out_channels, self.groups, height, width, *self.stride)
        return _Sizes(*sizes, units.per_pair, self.radius, torch.get_num_threads())


def call(name: str, layout: Layout, units: UnitArrays, *pointers: Any) -> None:
    """Call the library's function ``name``.

    Raises:
        ValueError: a displacement is not finite.
        MemoryError: there is not enough memory.
    """
    run: Callable[..., int] = getattr(load(), name)
    status = run(ctypes.byref(layout.sizes(units)), ctypes.byref(units.struct), *pointers)
    if status == _NOT_FINITE:
        check_finite(units.mu)
    if status:
        raise MemoryError(f"{name}: no memory for {layout.shape} images; use a smaller batch")


class Lists:
    """The lists of one layer for images of one size, built once by the library, which forgets the units."""

    def __init__(self, layout: Layout, units: UnitArrays, gaussian: Tensor):
        self._shape, self._plan = layout.shape, ctypes.c_void_p()
        taps = array(gaussian)
        call("daukit_plan", layout, units, at(taps), ctypes.byref(self._plan))

    @property
    def nbytes(self) -> int:
        """Memory of the lists."""
        return int(load().daukit_plan_bytes(self._plan))

    def run(self, image: Tensor, bias: Tensor | None, relu: bool, output: Tensor) -> None:
        """Run the forward on an image of the layout's shape."""
        image, bias = array(image), None if bias is None else array(bias)
        pointers = at(bias), int(relu), at(image), at(output)
        if load().daukit_plan_run(self._plan, torch.get_num_threads(), *pointers):
            raise MemoryError(f"daukit_plan_run: no memory for {self._shape} images; use a smaller batch")

    def __del__(self) -> None:
        if self._plan:
            load().daukit_plan_free(self._plan)
            self._plan = ctypes.c_void_p()


def blur(image: Tensor, along_y: Tensor, along_x: Tensor, output: Tensor | None = None) -> Tensor:
    """Correlate planes of ``image`` (N, C, H, W) with ``along_y (x) along_x``, both even; zero padding, same size."""
    output = torch.empty_like(image) if output is None else output
    column, row = array(along_y), array(along_x)
    batch, channels, height, width = image.shape
    pointers = (at(column), at(row), at(image), at(output))
    radius = column.numel() // 2
    if load().daukit_blur(batch * channels, height, width, radius, *pointers, torch.get_num_threads()):
        raise MemoryError(f"daukit_blur: no memory for {tuple(image.shape)} images; use a smaller batch")
    return output
