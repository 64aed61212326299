"""Print the tables of a study: ``python tables.py STUDY.toml RUNS``.

``RUNS`` is where ``run.py`` put its results, or the folder of ``logs`` that keeps what is needed of them. Scores are
means over seeds, with the least and the greatest; a difference within that spread is none. Times are those of
``times.py``, of a training step and of a forward of the prepared network, beside the first row of the first table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from daukit.training.log import EpochResult
from daukit.training.toml import parse_toml

DIGITS = {"accuracy": (100, 2, "accuracy, %"), "mean_iou": (100, 1, "mean IoU, %"), "psnr": (1, 2, "PSNR, dB")}
"""By headline: the unit's factor, decimals, and words."""


def main() -> None:
    """Print all tables in Markdown."""
    parser = argparse.ArgumentParser(description="Print the tables of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    study = parse_toml(arguments.study.read_text())
    if not arguments.runs.is_dir():
        parser.error(f"{arguments.runs}: there is no such folder; run.py makes it")
    times = arguments.runs / "times.json"
    taken = json.loads(times.read_text()) if times.exists() else {}
    for table in study["tables"]:
        print_table(table, arguments.runs, taken)
    if any(after["kind"] == "prune" for after in study.get("after", ())):
        print_pruning(study, arguments.runs)


def print_table(table: dict[str, Any], runs: Path, times: dict[str, dict[str, float]]) -> None:
    """Print a row per training: parameters, score, how far units moved, and times."""
    rows = {called: results(runs / name) for name, called in table["rows"].items()}
    if not any(rows.values()):
        return  # a study may be looked at before it is over
    headline = next(last[0].headline for last in rows.values() if last)
    print(f"### {table['title']}\n")
    print(f"| | parameters | {DIGITS[headline][2]} | seeds | units moved, px | step | forward |")
    print("|---|--:|---|--:|---|--:|--:|")
    for (called, last), name in zip(rows.items(), table["rows"], strict=True):
        if not last:
            continue
        moves = [each.moves for each in last if each.moves is not None]
        moved = ""
        if moves:
            beyond = statistics.fmean(each.beyond_a_pixel for each in moves)
            moved = f"{statistics.fmean(each.mean for each in moves):.2f} ({beyond:.0%} beyond a pixel)"
        taken = [f"{times[name][kind]:.2f}" if name in times else "" for kind in ("step", "forward")]
        print(
            f"| {called} | {parameters(runs / name):,} | {score(last)} | {len(last)} | {moved} | {' | '.join(taken)} |"
        )
    print()


def results(folder: Path) -> list[EpochResult]:
    """The last epochs of a training, one per seed that is done."""
    found = []
    for log in sorted(folder.glob("*.jsonl")):
        if log.with_suffix(".info.json").exists():
            lines = log.read_text().splitlines()
            result = EpochResult.from_json(json.loads(lines[-1]), len(lines))
            assert result is not None, log
            found.append(result)
    return found


def score(last: list[EpochResult]) -> str:
    """The mean over seeds, and the spread."""
    factor, digits, _ = DIGITS[last[0].headline]
    scores = [factor * each.test_score for each in last]
    spread = f" ({min(scores):.{digits}f} to {max(scores):.{digits}f})" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.{digits}f}{spread}"


def parameters(folder: Path) -> int:
    """Parameters of the networks of a training, all of which have as many."""
    (count,) = {json.loads(path.read_text())["parameters"] for path in folder.glob("*.info.json")}
    return int(count)


def print_pruning(study: dict[str, Any], runs: Path) -> None:
    """Print units and accuracy at each threshold, of the first seed."""
    (of,) = (after["of"] for after in study["after"] if after["kind"] == "prune")
    called = study["tables"][0]["rows"]
    sweeps = {name: runs / name / "0.prune.json" for name in of}
    points = {name: json.loads(path.read_text())["sweep"] for name, path in sweeps.items() if path.exists()}
    if points:
        thresholds = [f"{point['threshold']:g}" for point in next(iter(points.values()))]
        print(f"### What pruning leaves\n\n| | {' | '.join(thresholds)} |\n|---|{'---|' * len(thresholds)}")
        for name, sweep in points.items():
            cells = " | ".join(f"{p['units']:,}: {100 * p['accuracy']:.2f}" for p in sweep)
            print(f"| {called[name]} | {cells} |")


if __name__ == "__main__":
    main()
