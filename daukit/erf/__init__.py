"""Effective receptive fields of any ``nn.Module`` (Luo et al., 2017; paper, section 4.3, Fig. 8): docs/erf.md."""

from daukit.erf.field import MASSES, About, Contour, ReceptiveField
from daukit.erf.inputs import default_layers, fitting_size, random_inputs
from daukit.erf.measure import LEAST_IMAGES, effective_receptive_field
from daukit.erf.probing import MEASURES, Measure
from daukit.receptive_field import TheoreticalField, theoretical_receptive_field

__all__ = [
    "LEAST_IMAGES",
    "MASSES",
    "MEASURES",
    "About",
    "Contour",
    "Measure",
    "ReceptiveField",
    "TheoreticalField",
    "default_layers",
    "effective_receptive_field",
    "fitting_size",
    "random_inputs",
    "theoretical_receptive_field",
]
