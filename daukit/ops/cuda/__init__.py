"""The CUDA kernels of ``cuda/``: float32 sums on NVIDIA GPUs, compiled on the machine that runs them."""

from daukit.ops.cuda.availability import give_up, state, supports
from daukit.ops.cuda.cost import prefers_dense
from daukit.ops.cuda.driver import DriverLauncher
from daukit.ops.cuda.launcher import LAUNCHERS
from daukit.ops.cuda.passes import backward, forward

__all__ = ["LAUNCHERS", "backward", "forward", "give_up", "prefers_dense", "state", "supports"]

LAUNCHERS["cuda"] = DriverLauncher()
