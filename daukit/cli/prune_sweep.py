"""Many prunings of ``daukit prune``: the paper's Table 2 and Fig. 5, and how sensitive each layer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.cli import options
from daukit.cli.measures import Accuracy
from daukit.cli.prune_run import removed
from daukit.cli.report import note, print_json, print_table, wrote
from daukit.texts import csv_text, visible

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.plots.pruning import Curve
    from daukit.pruning import PruneReport, RelativeTo


@dataclass(frozen=True)
class Sweep:
    """What the command line asks for; with a ``seed`` the same numbers of units also go at random."""

    thresholds: list[float]
    relative_to: RelativeTo
    seed: int | None
    sensitivity: bool
    data: Path | None
    model: str | None
    model_arg: Sequence[str] | None
    weights: str | None
    device: str
    csv: Path | None
    figure: Path | None
    overwrite: bool
    dry_run: bool

    def check_outputs(self, source: Path) -> None:
        """Raise before any work if an output cannot be written."""
        from daukit.cli.figures import check_outputs

        check_outputs(self.figure, self.csv, overwrite=self.overwrite, dry_run=self.dry_run, sources=[source])


@dataclass(frozen=True)
class Told:
    """What a sweep has to tell, ready to be written: as a table, as JSON, as CSV, as curves."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    json: dict[str, Any]
    csv_columns: Sequence[str]
    csv_rows: Sequence[Sequence[object]]
    curves: Sequence[Curve]


def run_sweep(source: Path, sweep: Sweep) -> None:
    """Prune at every threshold, measure, draw and tell."""
    sweep.check_outputs(source)
    checkpoint = options.read_source(source, sweep.model, sweep.model_arg, sweep.weights)
    told = _one_by_one(checkpoint, sweep) if sweep.sensitivity else _together(checkpoint, sweep)
    if not sweep.dry_run:
        _write(told, sweep)
    asked = {"csv": sweep.csv, "figure": sweep.figure}
    written = {key: None if path is None or sweep.dry_run else str(path) for key, path in asked.items()}
    print_json("prune", {"relative_to": sweep.relative_to, **told.json, **written})
    print_table(told.title, told.columns, told.rows, answer=not any(written.values()))
    wrote(*written.values())
    if sweep.dry_run and any(asked.values()):
        note("dry run: nothing was written")


def _together(checkpoint: Checkpoint, sweep: Sweep) -> Told:
    """All layers pruned at once, at every threshold."""
    from daukit.pruning import prune
    from daukit.pruning import sweep as count

    reports = count(checkpoint, sweep.thresholds, sweep.relative_to)
    ways = {} if sweep.data is None else {"accuracy": None} | ({} if sweep.seed is None else {"random": sweep.seed})
    measure = Accuracy(sweep.data, sweep.model, sweep.device, len(reports) * len(ways))
    before = sum(checkpoint.layer(name).weight.numel() for name in checkpoint.layer_names)
    entries: list[dict[str, Any]] = []
    for report in reports:
        entry = {"threshold": report.rule.threshold, "units": report.units_after}
        for way, seed in ways.items():
            pruned, _ = prune(checkpoint, report.rule.threshold, sweep.relative_to, seed=seed)
            entry[way] = measure(pruned).accuracy
        entries.append(entry)
    rows = [
        (f"{e['threshold']:g}", *(f"{e[way]:.2%}" for way in ways), e["units"], removed(before, e["units"]))
        for e in entries
    ]
    layers = [
        {"name": counts[0].name, "units_before": counts[0].units_before, "units": [c.units_after for c in counts]}
        for counts in zip(*(report.layers for report in reports), strict=True)
    ]
    return Told(
        f"Threshold relative to the largest |w| of the {sweep.relative_to}",
        ("threshold", *ways, "units", "% removed"),
        rows,
        {"units_before": before, "sweep": entries, "layers": layers},
        ("threshold", "layer", "units_before", "units_after", *ways),
        _lines(reports, entries, list(ways)),
        _curves(reports, entries, list(ways), before),
    )


def _lines(reports: Sequence[PruneReport], entries: Sequence[dict[str, Any]], ways: list[str]) -> list[list[object]]:
    """A line per threshold and layer, and one for the network, which has the accuracies."""
    lines: list[list[object]] = []
    for report, entry in zip(reports, entries, strict=True):
        threshold = report.rule.threshold
        lines += [[threshold, c.name, c.units_before, c.units_after, *[None] * len(ways)] for c in report.layers]
        lines.append([threshold, "total", report.units_before, report.units_after, *(entry[way] for way in ways)])
    return lines


def _curves(
    reports: Sequence[PruneReport], entries: Sequence[dict[str, Any]], ways: list[str], before: int
) -> list[Curve]:
    """Accuracies by way of pruning; the share of units left by layer where none were measured."""
    from daukit.plots.pruning import Curve

    thresholds, units = [e["threshold"] for e in entries], [e["units"] for e in entries]
    if ways:
        labels = {"accuracy": "smallest |w| removed", "random": "as many, at random"}
        return [
            Curve(labels[way], thresholds, units, [e[way] for e in entries], control=way == "random") for way in ways
        ]
    curves = []
    for counts in zip(*(report.layers for report in reports), strict=True):
        shares = [c.units_after / max(1, c.units_before) for c in counts]
        curves.append(Curve(visible(counts[0].name), thresholds, shares))
    return [*curves, Curve("all layers", thresholds, [n / max(1, before) for n in units], control=True)]


def _one_by_one(checkpoint: Checkpoint, sweep: Sweep) -> Told:
    """Each layer pruned alone at every threshold, compared with the network as it is."""
    from daukit.plots.pruning import Curve
    from daukit.pruning import one_layer_at_a_time

    names = checkpoint.layer_names
    measure = Accuracy(sweep.data, sweep.model, sweep.device, 1 + len(names) * len(sweep.thresholds))
    whole = measure(checkpoint)
    entries: list[dict[str, Any]] = []
    units = 0
    for name, pruned, report in one_layer_at_a_time(checkpoint, sweep.thresholds, sweep.relative_to):
        result, (before, after) = measure(pruned), report.units_by_layer[name]
        units = report.units_before
        entries.append({
            "layer": name, "threshold": report.rule.layer_thresholds[name], "units_before": before,
            "units_after": after, "accuracy": result.accuracy, "loss": result.loss,
            "accuracy_change": result.accuracy - whole.accuracy, "loss_change": result.loss - whole.loss,
        })  # fmt: skip
    rows = [
        (
            e["layer"], f"{e['threshold']:g}", e["units_after"], removed(e["units_before"], e["units_after"]),
            f"{e['accuracy']:.2%}", f"{100 * e['accuracy_change']:+.2f}", f"{e['loss_change']:+.4f}",
        )
        for e in entries
    ]  # fmt: skip
    curves = []
    for name in names:
        own = [e for e in entries if e["layer"] == name]
        left = [e["units_after"] / max(1, e["units_before"]) for e in own]
        accuracies = [whole.accuracy, *(e["accuracy"] for e in own)]
        curves.append(Curve(visible(name), [0.0, *(e["threshold"] for e in own)], [1.0, *left], accuracies))
    columns = ("layer", "threshold", "units", "% removed", "accuracy", "change (points)", "change of loss")
    return Told(
        f"One layer pruned at a time (unpruned: {whole.accuracy:.2%}); threshold relative to the {sweep.relative_to}",
        columns,
        rows,
        {"units_before": units, "accuracy": whole.accuracy, "loss": whole.loss, "sensitivity": entries},
        list(entries[0]),
        [list(e.values()) for e in entries],
        curves,
    )


def _write(told: Told, sweep: Sweep) -> None:
    """Write the CSV file and the figure, where they are asked for."""
    from daukit.files import write_atomic

    if sweep.csv is not None:
        text = csv_text(told.csv_columns, told.csv_rows)
        write_atomic(sweep.csv, text.encode(), overwrite=sweep.overwrite)
    if sweep.figure is not None:
        from daukit.cli.figures import save_figure
        from daukit.plots.pruning import plot_accuracy, plot_units

        if sweep.data is None:
            drawn = plot_units(told.curves)
        else:
            drawn = plot_accuracy(told.curves, shares=sweep.sensitivity)
        save_figure(drawn, sweep.figure, overwrite=sweep.overwrite)
