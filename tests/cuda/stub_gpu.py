"""A plugin of pytest: the tests of a GPU on the emulator, where nothing but torch, pytest and daukit is installed.

It shows that they start and would pass on a machine that has what they need, not what a GPU does. Reading a value, for
which a GPU would be waited for, is an error where it would be one; copies from the host are not seen. A graph replays
what was done while it was captured.
"""

import contextlib
import importlib.machinery
import sys
import types
import warnings

import torch
from emulated import EmulatedLauncher
from observed import Observed

from daukit import ops
from daukit.ops import cuda
from daukit.ops.cuda import availability, chooser

MISSING = {
    "jsonschema",
    "dcls",
    "hypothesis",
    "xdist",
    "scipy",
    "torchmetrics",
    "pydantic",
    "onnx",
    "onnxruntime",
    "pip",
}
# A process of its own has no emulator.
NEEDS_A_GPU = {"test_wrong_pointers_are_asserted_on_the_device"}


class Bare(importlib.machinery.PathFinder):
    """The path, on which some packages are not to be found."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in MISSING else super().find_spec(fullname, path, target)


class Unwaiting(Observed):
    """An error at what would wait for a GPU; with ``done``, a list that every operation and its results go to."""

    def __init__(self, done=None):
        super().__init__()
        self.done = done

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before, result = len(self.waits), super().__torch_dispatch__(function, types, args, kwargs)
        if len(self.waits) > before:
            raise RuntimeError(f"{self.waits[-1]} waits for the GPU")
        if self.done is not None and not str(function).startswith("daukit."):
            self.done.append((function, args, kwargs or {}, result))
        return result


class Launcher(EmulatedLauncher):
    recording = None

    def launch(self, device, launch, *arguments):
        super().launch(device, launch, *arguments)
        if self.recording is not None:
            self.recording.append((super().launch, (device, launch, *arguments), {}, None))


LAUNCHER = Launcher()
is_available = torch.cuda.is_available


class Graph:
    """What was done while it was captured, done again on the same tensors."""

    def __init__(self):
        self.done = []

    @contextlib.contextmanager
    def capture(self):
        Launcher.recording = self.done
        try:
            with Unwaiting(self.done):
                yield
        finally:
            Launcher.recording = None

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, before in self.done:
            after = function(*args, **kwargs)
            pairs = zip(before, after, strict=True) if isinstance(before, (tuple, list)) else [(before, after)]
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


_modes = []


def set_sync_debug_mode(mode):
    warnings.warn(
        "Synchronization debug mode is a prototype feature and does not yet detect all", UserWarning, stacklevel=2
    )
    if mode == "error":
        _modes.append(Unwaiting())
        _modes[-1].__enter__()
    elif _modes:
        _modes.pop().__exit__(None, None, None)


def choose_backend(*_):
    return "auto" if ops._backend == "auto" else ops._backend


def pytest_load_initial_conftests():
    sys.meta_path[:] = [Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
    stream = types.SimpleNamespace(synchronize=lambda: None)
    replaced = {
        "set_sync_debug_mode": set_sync_debug_mode,
        "CUDAGraph": Graph,
        "graph": Graph.capture,
        "Stream": lambda: stream,
        "stream": lambda _: contextlib.nullcontext(),
        "_sleep": lambda _: None,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    # Until the tests are chosen: torch's compiler asks, too, and would want a driver.
    torch.cuda.is_available = lambda: True
    cuda.LAUNCHERS["cpu"] = LAUNCHER
    ops.choose_backend = choose_backend
    availability._missing_piece = lambda: None
    # Few instances of kernels, each of which takes seconds to compile.
    chooser.WARPS_BY_REGISTERS = {loop: {(4, 4): 16} for loop in chooser.WARPS_BY_REGISTERS}
    chooser.WARPS, chooser.SPLITS, chooser.STRIP_TILES = (8,), (1,), (4,)


def pytest_collection_modifyitems(config, items):
    torch.cuda.is_available = is_available
    left_out = [item for item in items if item.name in NEEDS_A_GPU]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    for item in items:
        item.module.DEVICE = "cpu"
