"""The CUDA kernels of ``cuda/``: float32 sums on NVIDIA GPUs, compiled on the machine that runs them."""

from daukit.ops.cuda.cost import KERNELS, Effort, Way, backward_effort, cheapest, costs_of, worth_timing
from daukit.ops.cuda.driver import DriverLauncher
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.cuda.near import Near
from daukit.ops.cuda.passes import Cuda
from daukit.ops.cuda.tuning import drop, is_of_use, measured, tune

__all__ = [
    "KERNELS",
    "LAUNCHERS",
    "Cuda",
    "Effort",
    "Near",
    "Way",
    "backward_effort",
    "cheapest",
    "costs_of",
    "drop",
    "is_of_use",
    "measured",
    "tune",
    "worth_timing",
]

LAUNCHERS["cuda"] = DriverLauncher()
