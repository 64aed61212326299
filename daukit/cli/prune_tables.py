"""The tables and lines of ``daukit prune``: one pruning, a sweep over thresholds, the sensitivity of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daukit.cli.printing import change, print_line, print_table
from daukit.texts import counted

if TYPE_CHECKING:
    from daukit.channels import LayerChannels
    from daukit.pruning import Rule
    from daukit.workflows.iterate import Iteration
    from daukit.workflows.prune import Pruning
    from daukit.workflows.sensitivity import Sensitivity
    from daukit.workflows.sweep import Sweep
    from daukit.workflows.unit_costs import TimePlan

_Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""Title, headings and rows."""


def print_pruning(result: Pruning, rule: Rule | None) -> None:
    """Print the units of every layer, and what else was done and measured."""
    rows = [(layer.name, layer.units_before, layer.units_after) for layer in result.layers]
    rows.append(("total", result.units_before, result.units_after))
    table: list[tuple[object, ...]] = [(*row, _removed(*row[1:])) for row in rows]
    columns = ["layer", "before", "after", "% removed"]
    if result.layer_thresholds:
        columns.append("threshold")
        thresholds = [*(layer.threshold for layer in result.layers), None]
        table = [(*row, threshold) for row, threshold in zip(table, thresholds, strict=True)]
    print_table(_title(result, rule), columns, table)
    if result.ties is not None:
        kept = result.least_kept
        least = "no unit stays" if kept is None else f"the smallest unit that stays has {kept:.6g} of its reference"
        ties = f"; {result.ties:,} units of exactly that size went, the first ones in the file" if result.ties else ""
        print_line(f"{least}{ties}")
    _print_merges(result)
    _print_channels(result.channels or ())
    _print_measures(result)


def print_rounds(result: Iteration) -> None:
    """Print what was left after each round, and how the accuracy, or what stands for it, went."""
    from daukit.workflows.headlines import headline_of, value_of

    columns = ["round", "keep", "units", "multiply-adds"]
    rows: list[tuple[object, ...]] = [
        (str(each.round), f"{each.keep:.6g}", each.units, each.multiply_adds) for each in result.rounds
    ]
    headline = headline_of(result, "_after")
    if headline is not None:
        columns += [f"{headline.title}, pruned", f"{headline.title}, trained"]
        figures = [[headline.text(value_of(each, ending)) for ending in ("_pruned", "")] for each in result.rounds]
        rows = [(*row, *two) for row, two in zip(rows, figures, strict=True)]
    what = "units" if result.units is not None or result.remove is not None else "of the cost"
    rounds, epochs = counted(len(rows), "round"), counted(result.epochs_between, "epoch")
    title = f"{rounds} of pruning and {epochs} of training; keep: {what}"
    print_table(f"{title}, by {_symbol(result.score)}", columns, rows)
    _print_headline(result)
    if result.time is not None:
        medians = result.time.before.median, result.time.after.median
        print_line(f"forward pass of {_sizes(result.time.input)}: {change(*medians, 'ms')}")
    if result.units_after is not None:
        print_line(f"network: {change(result.units_before, result.units_after, 'units')}")
    if result.bytes_after is not None:
        print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")


def print_sweep(result: Sweep | Sensitivity, *, answer: bool) -> None:
    """Print the network, or each layer pruned alone, at every threshold; ``answer`` is as in ``print_table``."""
    from daukit.workflows.sweep import Sweep

    title, columns, rows = _of_network(result) if isinstance(result, Sweep) else _of_layers(result)
    print_table(title, columns, rows, answer=answer)


def _of_network(result: Sweep) -> _Table:
    from daukit.workflows.headlines import HEADLINES
    from daukit.workflows.sweep import measured_in

    measured = measured_in(result)
    headline = HEADLINES[measured[0]] if measured else None
    rows: list[tuple[object, ...]] = []
    for point in result.sweep:
        figures = [headline.text(getattr(point, name)) for name in measured] if headline else []
        rows.append((f"{point.threshold:g}", *figures, point.units, _removed(result.units_before, point.units)))
    titles = (headline.title, "random")[: len(measured)] if headline else ()
    columns = ("threshold", *titles, "units", "% removed")
    return f"Threshold relative to the largest {_symbol(result.score)} of the {result.relative_to}", columns, rows


def _of_layers(result: Sensitivity) -> _Table:
    from daukit.workflows.headlines import ACCURACY, headline_of, value_of

    headline = headline_of(result) or ACCURACY
    rows: list[tuple[object, ...]] = [
        (
            entry.layer, f"{entry.threshold:g}", entry.units_after, _removed(entry.units_before, entry.units_after),
            headline.text(value_of(entry)), headline.difference(value_of(entry, "_change")),
            f"{entry.loss_change:+.4f}",
        )
        for entry in result.sensitivity
    ]  # fmt: skip
    columns = ("layer", "threshold", "units", "% removed", headline.title, headline.change, "change of loss")
    title = f"One layer pruned at a time (unpruned: {headline.text(value_of(result))})"
    title += "" if result.score == "magnitude" else f" by {_symbol(result.score)}"
    return f"{title}; threshold relative to the {result.relative_to}", columns, rows


def _title(result: Pruning, rule: Rule | None) -> str:
    if rule is None:
        return "No units were removed for their weight"
    symbol = _symbol(result.score)
    if rule.is_budget:
        units = result.units_before if result.merge is None else sum(each.units_after for each in result.merge.layers)
        gone = units - result.units_after if rule.is_of_cost else rule.removed(units)
        which = f"the smallest {symbol} relative to the largest of their {rule.relative_to}"
        title = f"{gone:,} units removed, those with {which}"
    else:
        one = {layer.threshold for layer in result.layers}
        share = f"{one.pop():g}" if len(one) == 1 else "the threshold of their layer"
        title = f"Units with {symbol} < {share} x the largest of their {rule.relative_to}"
    if rule.seed is None or rule.score == "random":
        return title
    return f"{title}; as many units per layer, chosen at random (seed {rule.seed})"


def _symbol(score: str) -> str:
    from daukit.workflows.scores import SYMBOLS

    return SYMBOLS.get(score, score)


def _print_merges(result: Pruning) -> None:
    for layer in () if result.merge is None else result.merge.layers:
        gone = layer.units_before - layer.units_after
        if gone:
            print_line(
                f"{layer.name}: merged {gone:,} units into others, moved by up to {layer.moved:.3g} px; its "
                f"filters changed by {layer.error:.2g} of their norm"
            )


def _print_channels(layers: Sequence[LayerChannels]) -> None:
    for layer in layers:
        if layer.dropped:
            folded = f", of which {len(layer.folded):,} went into a bias" if layer.folded else ""
            print_line(f"{layer.name}: dropped {len(layer.dropped):,} channels{folded}")
        if layer.constant:
            print_line(f"{layer.name}: {len(layer.constant):,} constant channels stay: {layer.reason}")


def _print_measures(result: Pruning) -> None:
    _print_headline(result)
    if result.recalibrated is not None:
        print_line(f"statistics of batch norms: from {result.recalibrated:,} images")
    if result.plan is not None:
        print_line(f"predicted time of {_sizes(result.plan.input)}: {_predicted(result.plan)}")
    if result.time is not None:
        medians = result.time.before.median, result.time.after.median
        print_line(f"forward pass of {_sizes(result.time.input)}: {change(*medians, 'ms')}")
    before, after = result.multiply_adds_before, result.multiply_adds_after
    if result.input is not None and before is not None and after is not None:
        print_line(f"one image of {_sizes(result.input[1:])}: {change(before, after, 'multiply-adds')}")
    print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")


def _print_headline(result: Pruning | Iteration) -> None:
    from daukit.workflows.headlines import headline_of, value_of

    headline = headline_of(result, "_before")
    if headline is not None:
        before, after = (headline.text(value_of(result, ending)) for ending in ("_before", "_after"))
        print_line(f"{headline.title} {before} -> {after}")


def _predicted(plan: TimePlan) -> str:
    return change(plan.network, plan.predicted, "ms")


def _sizes(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _removed(before: int, after: int) -> str:
    """The share of units that went, in percent."""
    return f"{100 * (before - after) / before:.1f}" if before else "0.0"
