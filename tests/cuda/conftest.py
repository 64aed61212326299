"""The CUDA backend on the emulator in place of a GPU."""

import pytest
from emulated import EmulatedLauncher

from daukit.ops import cuda
from daukit.ops.cuda import availability, call, chooser


@pytest.fixture
def few_instances(monkeypatch):
    """Let the chooser choose among one tile of each kernel, so that few have to be compiled."""
    tiles = {loop: {(4, 4): 16, (1, 1): 16} for loop in chooser.WARPS_BY_REGISTERS}
    monkeypatch.setattr(chooser, "WARPS_BY_REGISTERS", tiles)
    monkeypatch.setattr(chooser, "WARPS", (8,))
    monkeypatch.setattr(chooser, "SPLITS", (1, 2))
    monkeypatch.setattr(chooser, "STRIP_TILES", (4, 1))
    forget_choices()
    yield
    forget_choices()


def forget_choices():
    """Let launches be chosen anew."""
    chooser.choose.cache_clear()
    call.plan_of.cache_clear()


@pytest.fixture
def gpu(monkeypatch):
    """An emulated GPU, which computes on tensors of the CPU."""
    launcher = EmulatedLauncher()
    monkeypatch.setitem(cuda.LAUNCHERS, "cpu", launcher)
    monkeypatch.setattr(availability, "_missing_piece", lambda: None)
    monkeypatch.setattr(availability, "_failures", {})
    return launcher
