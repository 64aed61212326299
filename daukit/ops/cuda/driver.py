"""Launches through the CUDA driver, on torch's current stream and in its context."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import torch

from daukit.errors import CudaError, CudaUnavailableError
from daukit.ops.cuda.chooser import Gpu
from daukit.ops.cuda.compiler import compile_kernel
from daukit.ops.cuda.launcher import Argument, Launch, Source, packed, value

TIMED_RUNS = 5
"""Runs of which the shortest counts, where ways are timed."""

DEFAULT_SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that a kernel may have without asking for more."""


NOT_FOR_THIS_DRIVER = ("CUDA_ERROR_INVALID_IMAGE", "CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
"""A driver's errors for a binary that is newer than itself, or for another GPU."""

TOO_LARGE = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
"""The driver's error for a block that needs more registers or shared memory than a multiprocessor has."""


class DriverLauncher:
    """The launcher of ``cuda`` devices. A module is loaded once per device, when its first kernel is launched."""

    def __init__(self) -> None:
        self._functions: dict[tuple[int, Source, str], Any] = {}
        self._gpus: dict[int, Gpu] = {}
        self._contexts: dict[int, Any] = {}
        self._identities: dict[int, str] = {}
        self._lock = threading.Lock()

    def gpu(self, device: torch.device) -> Gpu:
        """As ``Launcher.gpu``."""
        index = _index(device)
        if index not in self._gpus:
            properties = torch.cuda.get_device_properties(index)
            self._gpus[index] = Gpu(
                10 * properties.major + properties.minor,
                properties.multi_processor_count,
                _attribute("CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", index),
                _attribute("CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR", index),
            )
        return self._gpus[index]

    def identity(self, device: torch.device) -> str:
        """As ``Launcher.identity``."""
        index = _index(device)
        if index not in self._identities:
            version = _of_device(_driver(), index, _driver().cuDriverGetVersion())
            self._identities[index] = f"{torch.cuda.get_device_name(index)}, driver for CUDA {version}"
        return self._identities[index]

    def seconds(self, device: torch.device, run: Callable[[], object]) -> float:
        """As ``Launcher.seconds``: the shortest of a few runs, between two events each."""
        with torch.cuda.device(device):
            run()
            times = []
            for _ in range(TIMED_RUNS):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                run()
                end.record()
                end.synchronize()
                times.append(float(start.elapsed_time(end)) / 1e3)
        return min(times)

    def launch(self, device: torch.device, launch: Launch, *arguments: Argument) -> None:
        """As ``Launcher.launch``."""
        with torch.cuda.device(device):
            self._make_current(_index(device))
            function = self._function(launch, device)
            stream = torch.cuda.current_stream(device).cuda_stream
            values = [value(one) for one in arguments]
            addresses, driver = packed(values), _driver()
            status = driver.cuLaunchKernel(
                function, *launch.grid, *launch.block, launch.shared_bytes, stream, ctypes.addressof(addresses), 0
            )
            if status[0].name == TOO_LARGE:
                raise CudaUnavailableError(f"{_words(launch)} is too large for this GPU ({TOO_LARGE})")
            _checked(driver, status, launch, "cannot be launched")

    def _make_current(self, index: int) -> None:
        """Make torch's context of a device that of this thread: one of autograd's may have none yet.

        torch sets it when it next needs it, which is too late where the driver is called past it.
        """
        driver = _driver()
        if index not in self._contexts:
            device = _of_device(driver, index, driver.cuDeviceGet(index))
            self._contexts[index] = _of_device(driver, index, driver.cuDevicePrimaryCtxRetain(device))
        context = self._contexts[index]
        if int(_of_device(driver, index, driver.cuCtxGetCurrent())) != int(context):
            _of_device(driver, index, driver.cuCtxSetCurrent(context))

    def _function(self, launch: Launch, device: torch.device) -> Any:
        key = (_index(device), launch.source, launch.kernel)
        if key in self._functions:
            return self._functions[key]
        with self._lock:
            if key not in self._functions:
                self._functions[key] = self._load(launch, device)
        return self._functions[key]

    def _load(self, launch: Launch, device: torch.device) -> Any:
        source, driver, capability = launch.source, _driver(), self.gpu(device).capability
        loaded = driver.cuModuleLoadData(compile_kernel(source.file, dict(source.macros), capability))
        if loaded[0].name in NOT_FOR_THIS_DRIVER:
            # A GPU may refuse what is for another of its generation, and its driver yet compile for it.
            code = compile_kernel(source.file, dict(source.macros), capability, ptx=True)
            again = driver.cuModuleLoadData(code)
            loaded = again if again[0] == driver.CUresult.CUDA_SUCCESS else loaded
        if loaded[0].name in NOT_FOR_THIS_DRIVER:
            raise CudaUnavailableError(
                f"the NVIDIA driver cannot load what this NVRTC made of {source.file} ({loaded[0].name}); update the "
                "driver, or install the NVRTC of its CUDA version (daukit's extra 'cuda12' for CUDA 12)"
            )
        module = _checked(driver, loaded, launch, "cannot be loaded")
        function = _checked(driver, driver.cuModuleGetFunction(module, launch.kernel.encode()), launch, "is missing")
        if launch.shared_bytes > DEFAULT_SHARED_BYTES:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            status = driver.cuFuncSetAttribute(function, attribute, launch.shared_bytes)
            _checked(driver, status, launch, "cannot have its shared memory")
        return function


def peaks(device: torch.device) -> tuple[float, float]:
    """Peak float32 operations and bytes per second of a GPU, at the clocks that it reports."""
    index = _index(device)
    properties = torch.cuda.get_device_properties(index)
    lanes = Gpu(10 * properties.major + properties.minor, 0, 0, 0).lanes
    hertz = 1e3 * _attribute("CU_DEVICE_ATTRIBUTE_CLOCK_RATE", index)
    transfers = 2e3 * _attribute("CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE", index)  # two a clock
    width = _attribute("CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH", index) / 8
    return 2 * lanes * properties.multi_processor_count * hertz, transfers * width


def _attribute(name: str, index: int) -> int:
    driver = _driver()
    status, value = driver.cuDeviceGetAttribute(getattr(driver.CUdevice_attribute, name), index)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(f"cuda:{index} does not tell its {name}: {status.name}; look at nvidia-smi")
    return int(value)


def _of_device(driver: Any, index: int, result: tuple[Any, ...]) -> Any:
    """The value that a call about a device returned after its status, which must be success."""
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(f"cuda:{index} has no context for kernels: {status.name}; look at nvidia-smi")
    return values[0] if values else None


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _words(launch: Launch) -> str:
    return (
        f"CUDA kernel {launch.kernel} of {launch.source.file} (grid {launch.grid}, block {launch.block}, "
        f"{launch.shared_bytes} bytes of shared memory)"
    )


def _checked(driver: Any, result: tuple[Any, ...], launch: Launch, what: str) -> Any:
    """The values that a call of cuda-bindings returned after its status, which must be success."""
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(
            f"{_words(launch)} {what}: {status.name}; an earlier kernel may have failed, CUDA_LAUNCH_BLOCKING=1 shows "
            "which"
        )
    return values[0] if values else None
