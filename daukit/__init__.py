"""Displaced aggregation units for PyTorch: the layer, networks, and tools to prune, plot, study and rescale them.

Names load when first used, so that ``import daukit`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from daukit._version import __version__
from daukit.errors import CheckpointError, DataError, DaukitError, NetworkError, OutputError

if TYPE_CHECKING:
    from daukit.channels import drop_channels
    from daukit.checkpoint import Checkpoint, load, open, read, save, write
    from daukit.erf import effective_receptive_field
    from daukit.models import create_model
    from daukit.nn import DAUConv2d, parameter_groups, project_displacements, settle
    from daukit.offsets import displacement_distributions
    from daukit.ops import backend, dau_conv2d, dau_conv2d_gaussian, tune
    from daukit.preparation import prepare
    from daukit.pruning import prune
    from daukit.rescale import remove_pools, rescale_factors
    from daukit.snapping import snap
    from daukit.substitution import substitute, units_needed

_HOMES = {
    "channels": ("drop_channels",),
    "checkpoint": ("Checkpoint", "load", "open", "read", "save", "write"),
    "erf": ("effective_receptive_field",),
    "models": ("create_model",),
    "nn": ("DAUConv2d", "parameter_groups", "project_displacements", "settle"),
    "offsets": ("displacement_distributions",),
    "ops": ("backend", "dau_conv2d", "dau_conv2d_gaussian", "tune"),
    "preparation": ("prepare",),
    "pruning": ("prune",),
    "rescale": ("remove_pools", "rescale_factors"),
    "snapping": ("snap",),
    "substitution": ("substitute", "units_needed"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DAUConv2d",
    "DataError",
    "DaukitError",
    "NetworkError",
    "OutputError",
    "__version__",
    "backend",
    "create_model",
    "dau_conv2d",
    "dau_conv2d_gaussian",
    "displacement_distributions",
    "drop_channels",
    "effective_receptive_field",
    "load",
    "open",
    "parameter_groups",
    "prepare",
    "project_displacements",
    "prune",
    "read",
    "remove_pools",
    "rescale_factors",
    "save",
    "settle",
    "snap",
    "substitute",
    "tune",
    "units_needed",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"daukit.{_HOME[name]}"), name)
    if name in (
        "nn",
        "ops",
        "models",
        "channels",
        "checkpoint",
        "baking",
        "export",
        "preparation",
        "pruning",
        "offsets",
        "receptive_field",
        "erf",
        "rescale",
        "snapping",
        "plots",
        "training",
        "evaluation",
        "datasets",
        "tasks",
        "transforms",
        "fitting",
        "substitution",
        "importers",
        "workflows",
    ):
        return importlib.import_module(f"daukit.{name}")
    raise AttributeError(f"module 'daukit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
