"""The C++ kernels of daukit/csrc: float32 on the CPU. ctypes checks nothing, so every tensor is checked here first."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_taps
from daukit.ops.units import check_finite, check_pointers

ABI_VERSION = 1
"""Version of the C interface that this file speaks: ``DAUKIT_ABI_VERSION`` of daukit/csrc/daukit.h."""


_NOT_FINITE = 2  # of daukit_status


class _Sizes(ctypes.Structure):
    names = ("batch", "in_channels", "out_channels", "groups", "height", "width", "units", "radius", "threads")
    _fields_ = [(name, ctypes.c_int64) for name in names]  # noqa: RUF012 -- ctypes wants a list


class _Units(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "mu_y", "mu_x", "unit_ptr")]  # noqa: RUF012


@functools.cache
def library() -> ctypes.CDLL:
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
    loaded.daukit_measure_peak.restype = ctypes.c_double
    loaded.daukit_measure_peak.argtypes = [ctypes.c_int64]
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    call: list[Any] = [ctypes.POINTER(_Sizes), ctypes.POINTER(_Units)]
    loaded.daukit_forward.argtypes = [*call, *[pointer] * 4]
    loaded.daukit_backward_image.argtypes = [*call, *[pointer] * 2]
    loaded.daukit_backward.argtypes = [*call, *[pointer] * 7]
    loaded.daukit_blur.argtypes = [*[size] * 4, *[pointer] * 4, size]
    return loaded


def state() -> str:
    """``"available"`` or ``"unavailable: why"``."""
    try:
        library()
    except OSError as error:
        return f"unavailable: {error}"
    return "available"


def instruction_set() -> str:
    """The kernels that run here: ``"avx512"``, ``"avx2"`` or ``"generic"``."""
    name: bytes = library().daukit_instruction_set()
    return name.decode()


def peak() -> float:
    """Measured fused multiply-adds per second of all of torch's threads, in registers."""
    return float(library().daukit_measure_peak(torch.get_num_threads()))


class Native(Backend):
    """The C++ kernels; anything but float32 on the CPU goes to the dense path."""

    name = "native"
    convolves = False

    def state(self) -> str:
        """As ``Backend.state``."""
        return state()

    def supports(self, tensors: Tensors, geo: Geometry) -> bool:
        """As ``Backend.supports``."""
        return tensors.mu.dtype == torch.float32 and tensors.mu.device.type == "cpu"

    def check_values(self, tensors: Tensors) -> None:
        """As ``Backend.check_values``; the library finds displacements that are not finite in its own first pass."""
        check_pointers(tensors.weight, tensors.unit_ptr)

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """As ``Backend.forward``."""
        gaussian = _array(blur_taps(tensors.sigma, geo.radius).gaussian)
        units = _UnitArrays(tensors.weight, tensors.mu, tensors.unit_ptr)
        bias = None if tensors.bias is None else _array(tensors.bias)
        if tensors.input.numel() == 0:
            check_finite(units.mu)  # the library, which else finds NaN, is not called
        output = tensors.input.new_empty(geo.batch, geo.out_channels, *geo.in_size)
        for phase in _phases(geo):
            image = _array(phase.take(tensors.input))
            part = output if phase.whole else image.new_empty(image.shape[0], geo.out_channels, *image.shape[2:])
            _call("daukit_forward", image.shape, geo, units, _at(gaussian), _at(bias), _at(image), _at(part))
            if not phase.whole:
                phase.put(part, output)
        (sy, sx) = geo.stride
        return output[:, :, ::sy, ::sx]

    def backward(
        self,
        grad_output: Tensor,
        tensors: Tensors,
        geo: Geometry,
        *,
        mu_gradient: str,
        needs: Needs,
        compute: torch.dtype,
    ) -> Gradients:
        """As ``Backend.backward``; computes weight and mu together, the others where ``needs`` asks for them."""
        input, weight, mu, sigma, _, unit_ptr = tensors
        taps = blur_taps(sigma, geo.radius)
        units = _UnitArrays(weight, mu, unit_ptr)
        error = _unstride(grad_output, geo)
        grad_weight = torch.zeros_like(units.weight) if needs.weight or needs.mu else None
        grad_mu = torch.zeros_like(units.mu) if needs.weight or needs.mu else None
        grad_input = torch.empty_like(input, memory_format=torch.contiguous_format) if needs.input else None
        grad_sigma = torch.zeros_like(sigma) if needs.sigma else None
        for phase in _phases(geo):
            image, part = _array(phase.take(input)), _array(phase.take(error))
            grad_blurred = torch.empty_like(image) if needs.input or needs.sigma else None
            if grad_weight is not None and grad_mu is not None:
                slope = _array(taps.mu) if needs.mu and mu_gradient == "gaussian" else None
                grads = torch.empty_like(grad_weight), torch.empty_like(grad_mu)
                pointers = [_at(t) for t in (_array(taps.gaussian), slope, part, image, grad_blurred, *grads)]
                _call("daukit_backward", image.shape, geo, units, *pointers)
                grad_weight += grads[0]
                grad_mu += grads[1]
            elif grad_blurred is not None:
                _call("daukit_backward_image", image.shape, geo, units, _at(part), _at(grad_blurred))
            if grad_blurred is not None and grad_input is not None:
                # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
                blurred = grad_input if phase.whole else torch.empty_like(image)
                _blur(grad_blurred, taps.gaussian, taps.gaussian, blurred)
                if not phase.whole:
                    phase.put(blurred, grad_input)
            if grad_blurred is not None and grad_sigma is not None:
                # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
                by_sigma = _blur(image, taps.sigma, taps.gaussian) + _blur(image, taps.gaussian, taps.sigma)
                grad_sigma += torch.dot(grad_blurred.flatten(), by_sigma.flatten())
        return Gradients(
            grad_input,
            None if grad_weight is None else grad_weight.reshape(weight.shape),
            None if grad_mu is None else grad_mu.reshape(mu.shape),
            grad_sigma,
        )


def _array(tensor: Tensor) -> Tensor:
    """The tensor as the library wants it: on the CPU, float32 or int32, contiguous."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.int32):
        raise ValueError(
            f"the native backend takes float32 tensors on the CPU, got {tensor.dtype} on {tensor.device}; "
            'leave the choice of the backend to daukit, or use backend("dense")'
        )
    return tensor.detach().contiguous()


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _UnitArrays:
    """All units as flat arrays, which live as long as this object."""

    def __init__(self, weight: Tensor, mu: Tensor, unit_ptr: Tensor | None):
        self.weight, self.mu = _array(weight).reshape(-1), _array(mu).reshape(2, -1)
        self.unit_ptr = None if unit_ptr is None else _array(unit_ptr)
        self.per_pair = weight.shape[2] if unit_ptr is None else 0
        self.struct = _Units(_at(self.weight), _at(self.mu[0]), _at(self.mu[1]), _at(self.unit_ptr))


def _call(name: str, shape: torch.Size, geo: Geometry, units: _UnitArrays, *pointers: int | None) -> None:
    """Call the library for images of ``shape`` (N, C, H, W)."""
    batch, _, height, width = shape
    sizes = _Sizes(
        batch,
        geo.in_channels,
        geo.out_channels,
        geo.groups,
        height,
        width,
        units.per_pair,
        geo.radius,
        torch.get_num_threads(),
    )
    run: Callable[..., int] = getattr(library(), name)
    status = run(ctypes.byref(sizes), ctypes.byref(units.struct), *pointers)
    if status == _NOT_FINITE:
        check_finite(units.mu)
    if status:
        raise MemoryError(f"{name}: no memory for {tuple(shape)} images; use a smaller batch")


def _blur(image: Tensor, along_y: Tensor, along_x: Tensor, output: Tensor | None = None) -> Tensor:
    """Correlate every plane of ``image`` (N, C, H, W) with ``along_y (x) along_x``; zero padding, same size."""
    output = torch.empty_like(image) if output is None else output
    column, row = _array(along_y), _array(along_x)
    batch, channels, height, width = image.shape
    pointers = (_at(column), _at(row), _at(image), _at(output))
    radius = column.numel() // 2
    if library().daukit_blur(batch * channels, height, width, radius, *pointers, torch.get_num_threads()):
        raise MemoryError(f"daukit_blur: no memory for {tuple(image.shape)} images; use a smaller batch")
    return output


class _Phase:
    """Pixels ``dilation`` apart, from starts ``[y0, y1) x [x0, x1)`` that all give images of the same size.

    A dilated layer reads, for every output pixel, only pixels of that pixel's own phase: each phase is an image of its
    own, on which the layer is undilated.
    """

    def __init__(self, geo: Geometry, rows: range, columns: range):
        self.dilation, self.rows, self.columns = geo.dilation, rows, columns
        self.whole = geo.dilation == (1, 1)

    def take(self, image: Tensor) -> Tensor:
        """The phases of ``image`` (N, C, H, W) as further images: (phases * N, C, h, w)."""
        return image if self.whole else torch.cat(self._views(image))

    def put(self, images: Tensor, image: Tensor) -> None:
        """Write phases back into the image."""
        for view, part in zip(self._views(image), images.split(image.shape[0]), strict=True):
            view.copy_(part)

    def _views(self, image: Tensor) -> list[Tensor]:
        dy, dx = self.dilation
        return [image[:, :, y::dy, x::dx] for y in self.rows for x in self.columns]


def _phases(geo: Geometry) -> Iterator[_Phase]:
    """Phases by size: along an axis the first ``size % dilation`` ones are a pixel longer than the others."""
    if geo.batch == 0 or 0 in geo.in_size:
        return
    runs = []
    for size, step in zip(geo.in_size, geo.dilation, strict=True):
        longer = size % step
        runs.append([r for r in (range(longer), range(longer, min(step, size))) if len(r)])
    yield from (_Phase(geo, rows, columns) for rows in runs[0] for columns in runs[1])


def _unstride(grad_output: Tensor, geo: Geometry) -> Tensor:
    """The output gradient at stride 1: zero where the strided layer has no output."""
    if geo.stride == (1, 1):
        return grad_output
    (sy, sx) = geo.stride
    full = grad_output.new_zeros(geo.batch, geo.out_channels, *geo.in_size)
    full[:, :, ::sy, ::sx] = grad_output
    return full
