"""Rescale displacements where the resolution of a trained network changes (paper, section 4.3), on files.

``rescale_factors`` takes a factor per layer and needs no model class; ``remove_pools`` builds the network, takes pools
or strides out, and derives every layer's factor from the strides that are gone; ``plan_like`` finds which these are by
a second network, and ``finer_maps`` how much finer its maps are; ``compare`` and ``compare_modes`` say what that did to
the outputs; ``undo_rescale`` takes back the last rescale by factors.
"""

from daukit.rescale.comparison import compare_modes
from daukit.rescale.displacements import rescale_factors
from daukit.rescale.likeness import StridePlan, plan_like
from daukit.rescale.modes import HEAD_PADDINGS, MODES, HeadPadding, Mode
from daukit.rescale.outcome import EXACT_LIMIT, Difference, LayerChange, RescaleReport, dau_change
from daukit.rescale.pools import remove_pools
from daukit.rescale.reductions import Ratio, finer_maps
from daukit.rescale.undoing import Undoing, undo_rescale
from daukit.rescale.verify import check_exact, compare

__all__ = [
    "EXACT_LIMIT",
    "HEAD_PADDINGS",
    "MODES",
    "Difference",
    "HeadPadding",
    "LayerChange",
    "Mode",
    "Ratio",
    "RescaleReport",
    "StridePlan",
    "Undoing",
    "check_exact",
    "compare",
    "compare_modes",
    "dau_change",
    "finer_maps",
    "plan_like",
    "remove_pools",
    "rescale_factors",
    "undo_rescale",
]
