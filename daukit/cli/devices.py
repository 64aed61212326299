"""The device of ``--device``: found, tried, and named where it was not asked for."""

from __future__ import annotations

import typer

from daukit.cli.printing import note
from daukit.distributed import here


def choose(name: str, *, used: bool = True) -> str:
    """The device to compute on; commands choose it first.

    ``auto`` is the GPU of CUDA where there is one that computes, else the CPU; a message says that it took a GPU. What
    torch does not know or cannot reach is a usage error. Processes that torchrun started take a GPU each.

    Args:
        name: as the user wrote it.
        used: whether this call computes anything; if not, ``auto`` is the CPU, and no GPU is touched.
    """
    if name != "auto":
        name = here().device(name)
        _try_device(name)
        return name
    import torch

    if not used or not torch.cuda.is_available():
        return "cpu"
    name = here().device("cuda")
    try:
        _try_device(name)
    except typer.BadParameter as error:
        if not here().is_alone:
            raise  # all of them compute on a GPU, or none
        note(f"the GPU is left alone ({error.message}); computing on the CPU")
        return "cpu"
    note(f"computing on {torch.cuda.get_device_name()}; --device cpu leaves it alone")
    return name


def _try_device(name: str) -> None:
    """Make it a usage error if nothing can be computed there."""
    import torch

    try:
        # An addition: a GPU that torch has no code for takes memory, and fails at its first kernel.
        if torch.zeros(1, device=name).add(1).is_meta:
            raise typer.BadParameter("'meta' holds no numbers to compute with", param_hint="--device")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if "device type at start" in reason:  # torch lists twenty, most of which no one has
            reason = "torch knows no such device; give auto, cpu, cuda, cuda:1 or mps"
        raise typer.BadParameter(f"{name!r} cannot be used: {reason}", param_hint="--device") from None
    if name.startswith("cuda") and not here().is_alone:
        torch.cuda.set_device(name)
