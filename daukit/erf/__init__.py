"""Effective receptive fields of any ``nn.Module`` (Luo et al., 2017; paper, section 4.3, Fig. 8): docs/erf.md."""

from daukit.erf.field import MASSES, Contour, ReceptiveField
from daukit.erf.inputs import default_layers, fitting_size, random_inputs
from daukit.erf.measure import MEASURES, Measure, effective_receptive_field

__all__ = [
    "MASSES",
    "MEASURES",
    "Contour",
    "Measure",
    "ReceptiveField",
    "default_layers",
    "effective_receptive_field",
    "fitting_size",
    "random_inputs",
]
