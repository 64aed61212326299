"""Launches through the driver, with a driver and a GPU of torch's that only take notes."""

import contextlib
import ctypes
import enum
import types

import pytest
import torch

from daukit.errors import CudaError, CudaUnavailableError
from daukit.ops.cuda import availability, driver
from daukit.ops.cuda.chooser import Gpu
from daukit.ops.cuda.launcher import Launch, Source
from daukit.ops.geometry import Geometry


class Status(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701


class FakeDriver(types.SimpleNamespace):
    CUresult = Status
    CUfunction_attribute = types.SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="opt in")
    CUdevice_attribute = types.SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=101376,
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR=102400,
        CU_DEVICE_ATTRIBUTE_CLOCK_RATE=1_725_000,
        CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE=9_751_000,
        CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH=384,
    )

    def __init__(self):
        super().__init__(notes=[], fails=None, spares=None, failure=Status.CUDA_ERROR_INVALID_VALUE, current=0)

    def note(self, name, *arguments, value=None):
        self.notes.append((name, *arguments))
        is_spared = self.spares is not None and self.spares in str(arguments)
        status = self.failure if name == self.fails and not is_spared else Status.CUDA_SUCCESS
        return (status,) if value is None else (status, value)

    def cuModuleLoadData(self, binary):
        return self.note("load", binary, torch.cuda.current_device(), value=f"module {binary}")

    def cuModuleGetFunction(self, module, name):
        return self.note("get", name, value=(module, name))

    def cuFuncSetAttribute(self, function, attribute, value):
        return self.note("set", attribute, value)

    def cuLaunchKernel(self, function, *rest):
        *sizes, shared_bytes, stream, parameters, _ = rest
        addresses = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        number = ctypes.cast(addresses[1], ctypes.POINTER(ctypes.c_int)).contents.value
        return self.note("launch", function[1], tuple(sizes), shared_bytes, stream, number)

    def cuDeviceGet(self, index):
        return self.note("device", value=index)

    def cuDevicePrimaryCtxRetain(self, device):
        return self.note("retain", device, value=9000 + device)

    def cuCtxGetCurrent(self):
        return Status.CUDA_SUCCESS, self.current

    def cuCtxSetCurrent(self, context):
        self.current = context
        return self.note("context", context)

    def cuDeviceGetAttribute(self, attribute, index):
        return self.note("attribute", index, value=attribute)


@pytest.fixture
def fake(monkeypatch):
    """A driver, and two GPUs of torch's, the first of them current."""
    fake, current = FakeDriver(), [0]

    @contextlib.contextmanager
    def device(wanted):
        before, current[0] = current[0], wanted.index
        yield
        current[0] = before

    properties = types.SimpleNamespace(major=8, minor=6, multi_processor_count=84)
    monkeypatch.setattr(driver, "_driver", lambda: fake)
    monkeypatch.setattr(
        driver,
        "compile_kernel",
        lambda file, macros, capability, ptx=False: f"{file} {macros} {capability}{' as PTX' * ptx}",
    )
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    stream = types.SimpleNamespace
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream(cuda_stream=700 + device.index))
    return fake


LAUNCH = Launch(Source("scale.cu", (("TWICE", 2),)), "scale", (3, 2, 1), (64, 1, 1), 16)
ARGUMENTS = [None, ctypes.c_int(41)]


def test_a_kernel_is_loaded_once_on_each_device_and_launched_on_its_current_stream(fake):
    launcher = driver.DriverLauncher()
    for index in (0, 1, 1, 0):
        launcher.launch(torch.device("cuda", index), LAUNCH, *ARGUMENTS)
    loads = [note for note in fake.notes if note[0] == "load"]
    assert loads == [("load", "scale.cu {'TWICE': 2} 86", index) for index in (0, 1)]
    launches = [note for note in fake.notes if note[0] == "launch"]
    assert launches == [("launch", b"scale", (3, 2, 1, 64, 1, 1), 16, 700 + index, 41) for index in (0, 1, 1, 0)]
    assert not any(note[0] == "set" for note in fake.notes)


def test_torchs_context_is_that_of_the_thread_when_a_kernel_is_launched(fake):
    launcher = driver.DriverLauncher()
    for index, current in ((0, 0), (0, 9000), (1, 9000), (1, 7), (0, 9001)):
        fake.current = current
        launcher.launch(torch.device("cuda", index), LAUNCH, *ARGUMENTS)
        assert fake.current == 9000 + index
    assert [note for note in fake.notes if note[0] in ("retain", "context")] == [
        ("retain", 0), ("context", 9000), ("retain", 1), ("context", 9001), ("context", 9001), ("context", 9000),
    ]  # fmt: skip
    fake.current, fake.fails = 0, "context"
    with pytest.raises(CudaError, match=r"cuda:0 has no context for kernels: CUDA_ERROR_INVALID_VALUE"):
        launcher.launch(torch.device("cuda", 0), LAUNCH, *ARGUMENTS)


def test_more_than_48_kilobytes_of_shared_memory_are_asked_for_before_the_launch(fake):
    launcher = driver.DriverLauncher()
    launcher.launch(torch.device("cuda", 0), LAUNCH._replace(shared_bytes=80_000), *ARGUMENTS)
    names = [note[0] for note in fake.notes if note[0] in ("set", "launch")]
    assert names == ["set", "launch"] and ("set", "opt in", 80_000) in fake.notes


@pytest.mark.parametrize(
    ("step", "words"),
    [("load", "cannot be loaded"), ("get", "is missing"), ("set", "cannot have"), ("launch", "cannot be launched")],
)
def test_a_failure_names_the_kernel_its_launch_and_the_next_step(fake, step, words):
    fake.fails = step
    launch = LAUNCH._replace(shared_bytes=80_000)
    match = rf"kernel scale of scale.cu .*\(3, 2, 1\).*80000 bytes.* {words}.*INVALID_VALUE.*CUDA_LAUNCH_BLOCKING=1"
    with pytest.raises(CudaError, match=match):
        driver.DriverLauncher().launch(torch.device("cuda", 0), launch, *ARGUMENTS)


def test_a_binary_too_new_for_the_driver_is_a_missing_piece(fake):
    fake.fails, fake.failure = "load", Status.CUDA_ERROR_INVALID_IMAGE
    with pytest.raises(CudaUnavailableError, match=r"driver cannot load what this NVRTC made of scale.cu .*update the"):
        driver.DriverLauncher().launch(torch.device("cuda", 0), LAUNCH, *ARGUMENTS)


def test_a_binary_that_the_gpu_refuses_is_compiled_by_its_driver(fake):
    fake.fails, fake.failure, fake.spares = "load", Status.CUDA_ERROR_INVALID_IMAGE, "PTX"
    driver.DriverLauncher().launch(torch.device("cuda", 0), LAUNCH, *ARGUMENTS)
    loads = [note[1] for note in fake.notes if note[0] == "load"]
    assert loads == ["scale.cu {'TWICE': 2} 86", "scale.cu {'TWICE': 2} 86 as PTX"]
    assert fake.notes[-1][0] == "launch"


def test_a_kernel_too_large_for_the_gpu_is_no_reason_to_stop(fake):
    fake.fails, fake.failure = "launch", Status.CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
    with pytest.raises(CudaUnavailableError, match=r"kernel scale of scale.cu \(.*\) is too large for this GPU"):
        driver.DriverLauncher().launch(torch.device("cuda", 0), LAUNCH, *ARGUMENTS)


def test_the_gpu_tells_its_limits(fake):
    assert driver.DriverLauncher().gpu(torch.device("cuda", 1)) == Gpu(86, 84, 101376, 102400)


def test_peaks_are_products_of_what_the_card_tells(fake):
    flops, memory = driver.peaks(torch.device("cuda", 0))
    # 84 multiprocessors, 128 fused multiply-adds a clock at 1.725 GHz; 48 bytes twice a clock at 9.751 GHz.
    assert flops == 84 * 128 * 2 * 1.725e9 and memory == 2 * 9.751e9 * 48


@pytest.fixture
def cards(monkeypatch):
    """GPUs of torch's by compute capability, and a compiler that knows some."""
    cards = [(8, 0)]
    monkeypatch.setattr(availability, "_failures", {})
    monkeypatch.setattr(availability, "_missing_piece", lambda: None)
    monkeypatch.setattr(availability, "_unsupported", availability._unsupported.__wrapped__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: cards[index])
    monkeypatch.setattr(availability.compiler, "load_nvrtc", lambda: None)
    monkeypatch.setattr(availability.compiler, "known_architectures", lambda nvrtc: [75, 80])
    return cards


GEO = Geometry(1, 1, 1, 1, (8, 8), (1, 1), (1, 1), 3)


def test_one_unsupported_card_does_not_disable_the_others(cards, recwarn):
    cards[:] = [(6, 1), (8, 0)]
    assert availability.state() == "available"
    assert availability.supports(torch.device("cuda:1"), torch.float32, GEO)
    with pytest.warns(RuntimeWarning, match=r"without daukit's CUDA kernels, on cuda:0: .*compute capability 6\.1"):
        assert not availability.supports(torch.device("cuda"), torch.float32, GEO)
    assert not availability.supports(torch.device("cuda:0"), torch.float32, GEO)  # without a second warning
    assert availability.supports(torch.device("cuda:1"), torch.float32, GEO)
    cards.pop()
    assert availability.state().startswith("unavailable: this GPU has compute capability 6.1")


def test_a_card_that_gave_up_says_why(cards):
    assert availability.state() == "available" and availability.why_not(torch.device("cuda")) is None
    with pytest.warns(RuntimeWarning, match="on cuda:0: forward.cu does not compile"):
        availability.give_up(torch.device("cuda"), CudaUnavailableError("forward.cu does not compile"))
    assert availability.state() == "unavailable: forward.cu does not compile"
    assert availability.why_not(torch.device("cuda", 0)) == "forward.cu does not compile"


def test_without_a_gpu_the_state_says_what_is_missing(monkeypatch):
    missing = availability._missing_piece.__wrapped__
    monkeypatch.setattr(torch.version, "cuda", None)
    assert missing() == "this torch was built without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert missing() == "torch finds no NVIDIA GPU"


def test_the_state_is_listed_with_the_other_backends():
    from daukit.ops import backends

    assert backends()["cuda"] == availability.state()
