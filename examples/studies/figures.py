"""Draw a figure of a study: ``python figures.py STUDY.toml RUNS -o FIGURE [--table NAME | --drawing NAME]``.

It has accuracy over units left, a curve for each network that is pruned at several thresholds; with ``--table`` the
scores of the table that has ``figure = NAME``, over the time of a forward, a bar from the least to the greatest seed;
and with ``--drawing`` what the command of that name in ``[drawings]`` draws of the study's files and of ``--data``.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from run import daukit
from tables import DIGITS, finished, sweeps, times_of

from daukit.plots.pruning import MARKERS, Curve, plot_scores
from daukit.plots.style import COLORS, GUIDE, TEXT_WIDTH, style
from daukit.training.toml import parse_toml
from daukit.workflows.outputs import save_figure


def main() -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description="Draw a figure of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--table", help="the figure that a table of the study names")
    which.add_argument("--drawing", help="one of the commands that the study has for figures")
    parser.add_argument("--data", type=Path, help="the images that a drawing needs")
    arguments = parser.parse_args()
    study = parse_toml(arguments.study.read_text())
    tables = {table["figure"]: table for table in study["tables"] if "figure" in table}
    if not arguments.runs.is_dir():
        parser.error(f"{arguments.runs}: there is no such folder; run.py makes it")
    if arguments.drawing is not None:
        drawings = study.get("drawings", {})
        if arguments.drawing not in drawings:
            parser.error(f"--drawing: there is no {arguments.drawing!r} (drawings: {', '.join(drawings) or 'none'})")
        if arguments.data is None and "{data}" in drawings[arguments.drawing]:
            parser.error(f"--drawing: {arguments.drawing} is drawn of images; name their folder with --data")
        given = {"runs": arguments.runs, "data": arguments.data, "output": arguments.output}
        daukit([word.format(**given) for word in shlex.split(drawings[arguments.drawing])] + ["--overwrite", "--quiet"])
        return
    if arguments.table is None:
        if not sweeps(study, arguments.runs):
            parser.error(f"{arguments.runs}: no network there is pruned at several thresholds; give --table")
        figure = pruning(study, arguments.runs)
    elif arguments.table in tables:
        figure = scores_over_time(tables[arguments.table], arguments.runs, times_of(study, arguments.runs))
    else:
        parser.error(f"--table: there is no figure {arguments.table!r} (figures: {', '.join(tables) or 'none'})")
    save_figure(figure, arguments.output, overwrite=True)


def pruning(study: dict[str, Any], runs: Path) -> Figure:
    """Draw accuracy over units left, means over seeds in an area from the least to the greatest."""
    called, found = study["tables"][0]["rows"], sweeps(study, runs)
    curves = []
    for name, points in found.items():
        thresholds, units, scores = zip(*points, strict=True)
        curves.append(Curve(called[name], thresholds, units, [statistics.fmean(each) for each in scores]))
    figure = plot_scores(curves, "accuracy")
    for curve, points, color in zip(curves, found.values(), cycle(COLORS), strict=False):
        least, greatest = ([bound(point.scores) for point in points] for bound in (min, max))
        figure.axes[0].fill_between(curve.units, least, greatest, color=color, alpha=0.15, linewidth=0)
    return figure


def scores_over_time(table: dict[str, Any], runs: Path, times: dict[str, dict[str, float]]) -> Figure:
    """Draw the score of each training of a table over its forward's time; a line joins those of a group.

    Names that begin alike up to their first comma are a group.
    """
    groups: dict[str, list[tuple[float, list[float], str]]] = {}
    headline = "accuracy"
    for name, called in table["rows"].items():
        logs = finished(runs / name)
        if logs and name in times:
            group, _, rest = called.partition(", ")
            headline = logs[0][-1].headline
            point = (times[name]["forward"], [log[-1].test_score for log in logs], rest)
            groups.setdefault(group, []).append(point)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH / 1.6, TEXT_WIDTH / 2.6), layout="constrained")
        axes = figure.subplots()
        for i, (group, points) in enumerate(groups.items()):
            points = sorted(points)
            x, means = [point[0] for point in points], [statistics.fmean(point[1]) for point in points]
            ends = [[m - min(p[1]) for m, p in zip(means, points, strict=True)]]
            ends.append([max(p[1]) - m for m, p in zip(means, points, strict=True)])
            axes.errorbar(x, means, ends, label=group, color=COLORS[i], marker=MARKERS[i], markersize=3.5, capsize=2)
            for at, mean, (_, _, rest) in zip(x, means, points, strict=True):
                beside = (4, 5) if mean == max(means) else (4, -8)  # lines mostly come from below
                axes.annotate(rest, (at, mean), beside, textcoords="offset points", color=GUIDE, size=6)
        axes.set(xlabel="time of a forward, beside the 3x3 convolutions'", ylabel=DIGITS[headline][2].split(",")[0])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0) if DIGITS[headline][0] == 100 else "{x:g}")
        axes.grid(color=GUIDE, alpha=0.15, linewidth=0.5)
        axes.margins(x=0.18, y=0.12)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
