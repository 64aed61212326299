"""Pruning: remove units by their weight (paper, section 4.2, Table 2). It works on files and needs no network."""

from daukit.pruning.file import FileReport, prune_file
from daukit.pruning.merging import LayerMerge, merge
from daukit.pruning.removal import prune
from daukit.pruning.rules import RELATIVE_TO, RelativeTo, Rule
from daukit.pruning.selection import LayerCount, PruneReport, select
from daukit.pruning.sweeps import one_layer_at_a_time, sweep

__all__ = [
    "RELATIVE_TO",
    "FileReport",
    "LayerCount",
    "LayerMerge",
    "PruneReport",
    "RelativeTo",
    "Rule",
    "merge",
    "one_layer_at_a_time",
    "prune",
    "prune_file",
    "select",
    "sweep",
]
