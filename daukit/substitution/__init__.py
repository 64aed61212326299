"""DAU layers in place of a network's convolutions: fresh or fitted, and how many units a fit would need."""

from daukit.substitution.choice import KernelSize, SkippedLayer, Where
from daukit.substitution.needs import LayerNeeds, UnitsTable, units_needed
from daukit.substitution.surgery import SubstitutedLayer, SubstitutionReport, substitute

__all__ = [
    "KernelSize",
    "LayerNeeds",
    "SkippedLayer",
    "SubstitutedLayer",
    "SubstitutionReport",
    "UnitsTable",
    "Where",
    "substitute",
    "units_needed",
]
