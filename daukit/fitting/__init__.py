"""Fit displaced units to trained kernels: the units whose sum is nearest to a filter, for all filters of a layer."""

from daukit.fitting.atoms import OnFilters
from daukit.fitting.fit import FittedUnits, fit_errors, fit_units

__all__ = ["FittedUnits", "OnFilters", "fit_errors", "fit_units"]
