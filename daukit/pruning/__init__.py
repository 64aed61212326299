"""Pruning: remove units by their weight (paper, section 4.2, Table 2) or another score.

It works on files; only scores of the user's own, and those by a loss, need the network.
"""

from daukit.pruning.budgets import Costs
from daukit.pruning.file import FileReport, prune_file
from daukit.pruning.merging import LayerMerge, merge
from daukit.pruning.removal import prune
from daukit.pruning.rules import RELATIVE_TO, RelativeTo, Rule
from daukit.pruning.scores import Score, Scores, taylor
from daukit.pruning.selection import LayerCount, PruneReport, select
from daukit.pruning.sweeps import one_layer_at_a_time, sweep

__all__ = [
    "RELATIVE_TO",
    "Costs",
    "FileReport",
    "LayerCount",
    "LayerMerge",
    "PruneReport",
    "RelativeTo",
    "Rule",
    "Score",
    "Scores",
    "merge",
    "one_layer_at_a_time",
    "prune",
    "prune_file",
    "select",
    "sweep",
    "taylor",
]
