"""The layer, its initialisers, and what an optimiser needs to know about it."""

from daukit.nn.initialization import (
    INITIALIZER_OPTIONS,
    INITIALIZERS,
    Initialization,
    glorot_normal_,
    grid_,
    grid_points,
    normal_,
    uniform_,
)
from daukit.nn.layer import DAUConv2d, Form, unit_pointers
from daukit.nn.optimization import parameter_groups, project_displacements

__all__ = [
    "INITIALIZERS",
    "INITIALIZER_OPTIONS",
    "DAUConv2d",
    "Form",
    "Initialization",
    "glorot_normal_",
    "grid_",
    "grid_points",
    "normal_",
    "parameter_groups",
    "project_displacements",
    "uniform_",
    "unit_pointers",
]
