"""DAU layers in place of a network's convolutions: fresh, fitted or exact, and how many units a fit would need."""

from daukit.substitution.choice import KernelSize, SkippedLayer, Where
from daukit.substitution.magnitude import Magnitude
from daukit.substitution.needs import LayerNeeds, UnitsTable, units_needed
from daukit.substitution.sparse import (
    Candidate,
    Candidates,
    SparseLayer,
    SparseReport,
    put_sparse,
    sparse_candidates,
    substitute_sparse,
)
from daukit.substitution.surgery import SubstitutedLayer, SubstitutionReport, substitute

__all__ = [
    "Candidate",
    "Candidates",
    "KernelSize",
    "LayerNeeds",
    "Magnitude",
    "SkippedLayer",
    "SparseLayer",
    "SparseReport",
    "SubstitutedLayer",
    "SubstitutionReport",
    "UnitsTable",
    "Where",
    "put_sparse",
    "sparse_candidates",
    "substitute",
    "substitute_sparse",
    "units_needed",
]
