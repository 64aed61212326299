"""The layer, its initialisers, and what an optimiser needs to know about it."""

from daukit.nn.initialization import (
    INITIALIZER_OPTIONS,
    INITIALIZERS,
    UNIFORM_EXTENT,
    Initialization,
    diagonals_,
    glorot_normal_,
    grid_,
    grid_points,
    grid_shape,
    initialization_options,
    normal_,
    scaled_options,
    starts_of_layers,
    uniform_,
)
from daukit.nn.layer import DAUConv2d, Form, unit_pointers
from daukit.nn.linear import DAULinear
from daukit.nn.optimization import parameter_groups, project_displacements, settle
from daukit.nn.pixels import keep_apart
from daukit.ops.geometry import DEFAULT_MAX_DISPLACEMENT

__all__ = [
    "DEFAULT_MAX_DISPLACEMENT",
    "INITIALIZERS",
    "INITIALIZER_OPTIONS",
    "UNIFORM_EXTENT",
    "DAUConv2d",
    "DAULinear",
    "Form",
    "Initialization",
    "diagonals_",
    "glorot_normal_",
    "grid_",
    "grid_points",
    "grid_shape",
    "initialization_options",
    "keep_apart",
    "normal_",
    "parameter_groups",
    "project_displacements",
    "scaled_options",
    "settle",
    "starts_of_layers",
    "uniform_",
    "unit_pointers",
]
