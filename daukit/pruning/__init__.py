"""Pruning: remove units by their weight (paper, section 4.2, Table 2). Works on files; needs no model class."""

from daukit.checkpoint.file import stored_bytes
from daukit.pruning.channels import LayerChannels, drop_channels
from daukit.pruning.file import FileReport, is_daukit_file, prune_file
from daukit.pruning.merging import LayerMerge, merge
from daukit.pruning.removal import prune
from daukit.pruning.rules import RELATIVE_TO, RelativeTo, Rule
from daukit.pruning.selection import LayerCount, PruneReport, select
from daukit.pruning.sweeps import one_layer_at_a_time, sweep

__all__ = [
    "RELATIVE_TO",
    "FileReport",
    "LayerChannels",
    "LayerCount",
    "LayerMerge",
    "PruneReport",
    "RelativeTo",
    "Rule",
    "drop_channels",
    "is_daukit_file",
    "merge",
    "one_layer_at_a_time",
    "prune",
    "prune_file",
    "select",
    "stored_bytes",
    "sweep",
]
