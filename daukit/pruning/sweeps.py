"""Many prunings at once: the paper's Table 2, and how much each layer can take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daukit.checkpoint import Checkpoint, takes_any
from daukit.pruning.removal import remove_units
from daukit.pruning.rules import MAGNITUDE, RelativeTo, Rule
from daukit.pruning.scores import Sizes, magnitude
from daukit.pruning.selection import LayerCount, PruneReport, check_layers, network_largest, reference, select, sizes_of


@takes_any
def sweep(
    checkpoint: Checkpoint,
    thresholds: Sequence[float],
    relative_to: RelativeTo = "layer",
    *,
    score: str = MAGNITUDE,
    seed: int | None = None,
    sizes: Sizes = magnitude,
) -> list[PruneReport]:
    """Count what ``prune`` would remove at every threshold (the unit counts of the paper's Table 2), in one pass.

    Args:
        checkpoint: what would be pruned, a path or a model likewise; it is not changed.
        thresholds: as in ``prune``.
        relative_to: as in ``prune``.
        score: name of the score, for the rules of the reports.
        seed: of ``score="random"``.
        sizes: the scores; ``score="random"`` draws its own.
    """
    rules = [Rule(threshold, relative_to, score=score, seed=seed) for threshold in thresholds]
    counts: list[list[LayerCount]] = [[] for _ in rules]
    if rules:
        check_layers(checkpoint, rules[0])
        sizes = sizes_of(checkpoint, rules[0], sizes)
    largest = network_largest(checkpoint, relative_to, sizes)
    for name in checkpoint.layer_names:
        layer = checkpoint.layer(name)
        size = sizes(layer)
        base = reference(layer, size, relative_to, largest)
        for rule, entries in zip(rules, counts, strict=True):
            kept = int((size >= (rule.threshold or 0.0) * base).count_nonzero())
            entries.append(LayerCount(name, size.numel(), kept, rule.threshold))
    return [PruneReport(rule, tuple(entries)) for rule, entries in zip(rules, counts, strict=True)]


def one_layer_at_a_time(
    checkpoint: Checkpoint,
    thresholds: Sequence[float],
    relative_to: RelativeTo = "layer",
    *,
    score: str = MAGNITUDE,
    seed: int | None = None,
    sizes: Sizes = magnitude,
) -> Iterator[tuple[str, Checkpoint, PruneReport]]:
    """Prune each layer alone at each threshold, to measure how sensitive it is: (layer, pruned, report).

    The arguments are those of ``sweep``.
    """
    for name in checkpoint.layer_names:
        for threshold in thresholds:
            rule = Rule(relative_to=relative_to, layer_thresholds={name: threshold}, score=score, seed=seed)
            report, keeps = select(checkpoint, rule, sizes)
            yield name, remove_units(checkpoint, keeps, "prune", rule.to_json()), report
