"""Check what is installed, what runs here, and why something does not."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from daukit._version import __version__
from daukit.ops import backends, library
from daukit.ops.cuda.availability import why_not
from daukit.results import Size

_PACKAGES = ("numpy", "safetensors", "matplotlib", "pillow", "typer", "rich")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The packages installed and the backends that run.

    Attributes:
        daukit: version of daukit.
        python: version of Python.
        system: operating system and processor.
        packages: versions by package.
        backends: state of each backend of the operator, "available" or "unavailable: " and the reason.
        instruction_set: instruction set that the CPU kernels use; None without them.
        threads: threads that torch uses.
        devices: names of the devices, by torch's name for them; a GPU that cannot run the CUDA kernels says why.
    """

    daukit: str
    python: str
    system: str
    packages: dict[str, str]
    backends: dict[str, str]
    instruction_set: str | None
    threads: Size
    devices: dict[str, str]


def check_installation() -> Installation:
    """Collect what a report of a problem needs: versions, backends, threads and devices."""
    states = backends()
    return Installation(
        daukit=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        # torch's own word names the build, as 2.14.1+cu130, which what is said of its package leaves out.
        packages={"torch": str(torch.__version__), **{name: version(name) for name in _PACKAGES}},
        backends=states,
        instruction_set=library.instruction_set() if states["native"] == "available" else None,
        threads=torch.get_num_threads(),
        devices=_devices(states["cuda"] == "available"),
    )


def _devices(kernels: bool) -> dict[str, str]:
    """Devices; where there are CUDA kernels for one GPU, the others say why there are none for them."""
    found = {"cpu": platform.processor() or platform.machine()}
    for i in range(torch.cuda.device_count()):
        why = why_not(torch.device("cuda", i)) if kernels else None
        found[f"cuda:{i}"] = torch.cuda.get_device_name(i) + (f"; on the dense path: {why}" if why else "")
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found
