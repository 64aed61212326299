"""Print the table of a study: ``python summarize.py LOG``.

A method's change is its test accuracy less that of bilinear units, two a pair, of the same network, seed and gradient,
in points: the noise that both runs share is not in it. Its error is that of the mean over networks and seeds. Methods
that were tried once are left out.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

Run = dict[str, Any]


def main() -> None:
    """Read the log, and print a table in Markdown, the least loss first."""
    runs: list[Run] = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    twins = {place(run): run for run in runs if run["method"] in ("bilinear", "bilinear, exact")}
    rows: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        if place(run) not in twins:
            continue
        accuracy = twins[place(run)]["accuracy"]
        rows[run["method"], run.get("split", run["units"])].append({**run, "change": run["accuracy"] - accuracy})
        if run["layer"] == "dau" and not run["whole"]:
            rounded = {**run, "accuracy": run["rounded"], "change": run["rounded"] - accuracy}
            rows[f"{run['method']}, rounded at the end", run["units"]].append(rounded)
    print("| method | units a pair | shallow, % | deep, % | change, points | runs |")
    print("|---|---|---|---|---|---|")
    repeated = [row for row in rows.items() if len(row[1]) > 1]
    for (method, units), found in sorted(repeated, key=lambda row: -mean(row[1], "change")):
        by_network = [[run for run in found if run["network"] == name] for name in ("shallow", "deep")]
        accuracies = [f"{mean(some, 'accuracy'):.2f}" if some else "" for some in by_network]
        error = 100 * statistics.stdev(run["change"] for run in found) / math.sqrt(len(found))
        change = f"{mean(found, 'change'):+.2f} ± {error:.2f}"
        print(f"| {method} | {units or ''} | {' | '.join(accuracies)} | {change} | {len(found)} |")


def place(run: Run) -> tuple[str, int, str]:
    """Runs of one place differ in nothing but the method."""
    return run["network"], run["seed"], "gaussian" if run["layer"] == "conv" else run["gradient"]


def mean(runs: list[Run], key: str) -> float:
    """The mean of a share, in hundredths."""
    return 100 * statistics.mean(run[key] for run in runs)


if __name__ == "__main__":
    main()
