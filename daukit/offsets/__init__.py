"""Places, moves, widths and weights of a network's units: the numbers behind ``daukit plot-offsets``.

Everything works on checkpoints, dense or pruned, without any model class.
"""

from daukit.offsets.changes import LayerChanges, displacement_changes
from daukit.offsets.distributions import Distribution, LayerDistributions, displacement_distributions
from daukit.offsets.filters import KEEP, FilterRule, WeightFilter
from daukit.offsets.histograms import BINS, QUANTILES, Part
from daukit.offsets.sigmas import LayerSigmas, sigma_distributions
from daukit.offsets.spikes import Spike
from daukit.offsets.tables import CHANGE_COLUMNS, CSV_COLUMNS, SIGMA_COLUMNS, changes_to_csv, sigmas_to_csv, to_csv
from daukit.offsets.units import NEAR, Group
from daukit.offsets.weights import LayerWeights, weight_distributions

__all__ = [
    "BINS",
    "CHANGE_COLUMNS",
    "CSV_COLUMNS",
    "KEEP",
    "NEAR",
    "QUANTILES",
    "SIGMA_COLUMNS",
    "Distribution",
    "FilterRule",
    "Group",
    "LayerChanges",
    "LayerDistributions",
    "LayerSigmas",
    "LayerWeights",
    "Part",
    "Spike",
    "WeightFilter",
    "changes_to_csv",
    "displacement_changes",
    "displacement_distributions",
    "sigma_distributions",
    "sigmas_to_csv",
    "to_csv",
    "weight_distributions",
]
