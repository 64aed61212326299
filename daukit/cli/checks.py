"""``daukit checks``: what is installed, what runs, and why not."""

from __future__ import annotations

import platform
from typing import Any

from daukit.cli import options
from daukit.cli.report import print_json, print_table, speak

_PACKAGES = ("numpy", "safetensors", "matplotlib", "pillow", "typer", "rich")


def checks(json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Print versions, backends and why one is missing, threads and devices: what a report of a problem needs."""
    speak(json=json, quiet=quiet)
    result = _checks()
    print_json("checks", result)
    rows = [(name, "" if value is None else value) for name, value in _flat(result)]
    print_table("this machine", ("what", "state"), rows, answer=True)


def _checks() -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    from daukit._version import __version__
    from daukit.ops import backends, native

    states = backends()
    return {
        "daukit": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        # torch's own word names the build, as 2.14.1+cu130, which what is said of its package leaves out.
        "packages": {"torch": torch.__version__, **{name: version(name) for name in _PACKAGES}},
        "backends": states,
        "instruction_set": native.instruction_set() if states["native"] == "available" else None,
        "threads": torch.get_num_threads(),
        "devices": _devices(),
    }


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": platform.processor() or platform.machine()}
    for i in range(torch.cuda.device_count()):
        found[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _flat(result: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in result.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {name}", state) for name, state in value.items()]
        else:
            rows.append((key.replace("_", " "), value))
    return rows
