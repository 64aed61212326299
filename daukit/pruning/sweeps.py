"""Many prunings at once: the paper's Table 2, and how much each layer can take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daukit.checkpoint import Checkpoint, takes_any
from daukit.pruning.removal import prune
from daukit.pruning.rules import RelativeTo, Rule
from daukit.pruning.selection import LayerCount, PruneReport, check_layers, magnitude, network_largest, reference


@takes_any
def sweep(checkpoint: Checkpoint, thresholds: Sequence[float], relative_to: RelativeTo = "layer") -> list[PruneReport]:
    """Count what ``prune`` would remove at every threshold (the unit counts of the paper's Table 2), in one pass.

    ``checkpoint`` may be a path or a model likewise; it is not changed.
    """
    rules = [Rule(threshold, relative_to) for threshold in thresholds]
    counts: list[list[LayerCount]] = [[] for _ in rules]
    if rules:
        check_layers(checkpoint, rules[0])
    largest = network_largest(checkpoint, relative_to)
    for name in checkpoint.layer_names:
        layer = checkpoint.layer(name)
        size = magnitude(layer)
        base = reference(layer, size, relative_to, largest)
        for rule, entries in zip(rules, counts, strict=True):
            kept = int((size >= (rule.threshold or 0.0) * base).count_nonzero())
            entries.append(LayerCount(name, size.numel(), kept, rule.threshold))
    return [PruneReport(rule, tuple(entries)) for rule, entries in zip(rules, counts, strict=True)]


def one_layer_at_a_time(
    checkpoint: Checkpoint, thresholds: Sequence[float], relative_to: RelativeTo = "layer"
) -> Iterator[tuple[str, Checkpoint, PruneReport]]:
    """Prune each layer alone at each threshold, to measure how sensitive it is: (layer, pruned, report)."""
    for name in checkpoint.layer_names:
        for threshold in thresholds:
            yield name, *prune(checkpoint, relative_to=relative_to, layer_thresholds={name: threshold})
