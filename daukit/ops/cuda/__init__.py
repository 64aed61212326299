"""The CUDA kernels of ``cuda/``: float32 sums on NVIDIA GPUs, compiled on the machine that runs them."""

from daukit.ops.cuda.cost import Effort, Way, backward_effort, cheapest, worth_timing
from daukit.ops.cuda.driver import DriverLauncher
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.cuda.near import Near
from daukit.ops.cuda.passes import Cuda
from daukit.ops.cuda.tuning import fastest, is_of_use, tune

__all__ = [
    "LAUNCHERS",
    "Cuda",
    "Effort",
    "Near",
    "Way",
    "backward_effort",
    "cheapest",
    "fastest",
    "is_of_use",
    "tune",
    "worth_timing",
]

LAUNCHERS["cuda"] = DriverLauncher()
