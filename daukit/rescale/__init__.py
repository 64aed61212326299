"""Rescale displacements where the resolution of a trained network changes (paper, section 4.3), on files.

``rescale_factors`` takes a factor per layer and needs no model class; ``remove_pools`` builds the network, takes pools
out, and derives every layer's factor from the strides that are gone; ``compare`` says what that did to the outputs.
"""

from daukit.rescale.displacements import rescale_factors
from daukit.rescale.pools import remove_pools
from daukit.rescale.report import MODES, LayerChange, Mode, RescaleReport
from daukit.rescale.verify import EXACT_LIMIT, Difference, compare

__all__ = [
    "EXACT_LIMIT",
    "MODES",
    "Difference",
    "LayerChange",
    "Mode",
    "RescaleReport",
    "compare",
    "remove_pools",
    "rescale_factors",
]
