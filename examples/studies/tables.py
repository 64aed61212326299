"""Print the tables of a study: ``python tables.py STUDY.toml RUNS``.

``RUNS`` is where ``run.py`` put its results, or the folder of ``logs`` that keeps what is needed of them. Scores are
means over seeds, with the least and the greatest; a difference within that spread is none. Minutes are those of a
training, an epoch being its median: a machine may have stopped. Times are those of ``times.py``, of a training step and
of a forward of the prepared network, beside the first row of the first table. Networks that the study calls ``alike``
differ in them by chance alone, so that the median holds for all.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from daukit.training.log import EpochResult, read_log
from daukit.training.toml import parse_toml

DIGITS = {
    "accuracy": (100, 2, "accuracy, %"),
    "mean_iou": (100, 1, "mean IoU, %"),
    "psnr": (1, 2, "PSNR, dB"),
    "ssim": (1, 3, "SSIM"),
    "gridding": (100, 2, "gridding, %"),
}
"""By figure: the unit's factor, decimals, and words."""

SCORES = ("mean_iou", "psnr", "ssim")
"""What ``daukit evaluate`` measures of images, beside gridding."""


def main() -> None:
    """Print all tables in Markdown, after a word on how sure their times are."""
    parser = argparse.ArgumentParser(description="Print the tables of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    study = parse_toml(arguments.study.read_text())
    if not arguments.runs.is_dir():
        parser.error(f"{arguments.runs}: there is no such folder; run.py makes it")
    times = times_of(study, arguments.runs)
    texts = [words_on_chance(study, arguments.runs)]
    texts += [table_of_scores(table, arguments.runs, times) for table in study["tables"]]
    texts += [table_of_classes(table, arguments.runs) for table in study["tables"] if table.get("classes")]
    texts.append(table_of_pruning(study, arguments.runs))
    print("\n\n".join(text for text in texts if text))  # a study may be looked at before it is over


def times_of(study: dict[str, Any], runs: Path) -> dict[str, dict[str, float]]:
    """The time of a step and of a forward by training, beside the first row's; that of networks alike is one."""
    taken = times_taken(runs)
    if not taken:
        return {}
    alike = {name: group for group in study.get("alike", ()) for name in group}
    found: dict[str, dict[str, float]] = {}
    for name in study["trainings"]:
        if measured_of := [taken[each] for each in alike.get(name, [name]) if each in taken]:
            found[name] = {kind: statistics.median(each[kind] for each in measured_of) for kind in measured_of[0]}
    first = found.get(next(iter(study["tables"][0]["rows"])), {})
    return {name: {kind: time / first.get(kind, 1) for kind, time in of.items()} for name, of in found.items()}


def times_taken(runs: Path) -> dict[str, dict[str, float]]:
    """What ``times.py`` wrote: the time of a step and of a forward by training; empty if it did not."""
    path = runs / "times.json"
    return read(path) if path.exists() else {}


def words_on_chance(study: dict[str, Any], runs: Path) -> str:
    """How far the times of networks that are alike are apart, the longest beside the shortest; empty if none were."""
    taken, apart = times_taken(runs), [0.0]
    for group in study.get("alike", ()):
        times = [taken[name] for name in group if name in taken]
        by_kind = [[each[kind] for each in times] for kind in next(iter(times), ())]
        apart += [max(of_kind) / min(of_kind) - 1 for of_kind in by_kind]
    return f"Times of networks of the same layers differ by up to {max(apart):.0%} by chance." if any(apart) else ""


def table_of_scores(table: dict[str, Any], runs: Path, times: dict[str, dict[str, float]]) -> str:
    """A row per training: parameters, score, how far units moved, gridding, and times; empty of a single row.

    A table that names ``kinds`` of ``[[after]]`` has a row for each of them, with what was measured there alone.
    """
    if kinds := table.get("kinds"):
        of_each = [(name, called, of, kind) for name, called in table["rows"].items() for of, kind in kinds.items()]
        rows = [{"": f"{called}, {kind}", **measured(objects(runs / name, of))} for name, called, of, kind in of_each]
    else:
        rows = [cells(called, runs / name, times.get(name, {})) for name, called in table["rows"].items()]
    rows = [row for row in rows if len(row) > 1]
    return f"### {table['title']}\n\n{markdown(rows)}" if len(rows) > 1 else ""  # one row compares nothing


def cells(called: str, folder: Path, times: dict[str, float]) -> dict[str, str]:
    """A row of cells by column, empty if no seed is done."""
    logs = finished(folder)
    if not logs:
        return {}
    last = [log[-1] for log in logs]
    _, _, words = DIGITS[last[0].headline]
    row = {"": called, "parameters": f"{parameters(folder):,}"}
    if validation := objects(folder, "val"):
        row["on the validation part"] = spread(last[0].headline, [each[last[0].headline] for each in validation])
    row |= {words: spread(last[0].headline, [each.test_score for each in last]), "seeds": str(len(last))}
    if moves := [each.moves for each in last if each.moves is not None]:
        mean, beyond = (statistics.fmean(getattr(each, n) for each in moves) for n in ("mean", "beyond_a_pixel"))
    row["units moved, px"] = f"{mean:.2f} ({beyond:.0%} beyond one)" if moves else ""
    row |= {name: cell for name, cell in measured(objects(folder, "test")).items() if name not in row}
    row["minutes"] = f"{statistics.fmean(map(seconds, logs)) / 60:.1f}"
    return row | {kind: f"{times[kind]:.2f}" if kind in times else "" for kind in ("step", "forward")}


def measured(tests: list[dict[str, Any]]) -> dict[str, str]:
    """What ``daukit evaluate`` says of networks that segment or deblur, one per seed."""
    kinds = [kind for kind in SCORES if tests and kind in tests[0]]
    row = {DIGITS[kind][2]: spread(kind, [test[kind] for test in tests]) for kind in kinds}
    grids = [{each["period"]: each["share"] for each in test.get("gridding", ())} for test in tests]
    for period in grids[0] if grids else ():
        row[f"gridding {period}, %"] = spread("gridding", [shares[period] for shares in grids])
    return row


def seconds(log: list[EpochResult]) -> float:
    """Of a training that nothing stopped."""
    return len(log) * statistics.median(epoch.seconds for epoch in log)


def table_of_classes(table: dict[str, Any], runs: Path) -> str:
    """A row per class of the mean IoU over seeds, a column per training; empty if none is done."""
    found = {called: tests for name, called in table["rows"].items() if (tests := objects(runs / name, "test"))}
    if not found:
        return ""
    rows = []
    for place, name in enumerate(next(iter(found.values()))[0]["class_names"]):
        means = {n: statistics.fmean(each["class_iou"][place] for each in tests) for n, tests in found.items()}
        rows.append({"": name, **{called: f"{100 * mean:.1f}" for called, mean in means.items()}})
    return f"### {table['title']}: IoU of each class, %\n\n{markdown(rows)}"


def table_of_pruning(study: dict[str, Any], runs: Path) -> str:
    """A row per threshold: units, then how many of them are gone, and accuracy; empty if nothing is pruned.

    The least threshold, 0, is that of networks that are whole.
    """
    called, rows = study["tables"][0]["rows"], dict[float, dict[str, str]]()
    for name, points in sweeps(study, runs).items():
        for point in points:
            row = rows.setdefault(point.threshold, {"threshold": f"{point.threshold:g}"})
            gone = f"{point.units / points[0].units - 1:.0%}" if point.threshold else f"{point.units:,.0f} units"
            row[called[name]] = f"{gone}: {spread('accuracy', point.scores)}"
    return f"### What pruning leaves\n\n{markdown([rows[threshold] for threshold in sorted(rows)])}" if rows else ""


class Point(NamedTuple):
    """What a threshold leaves of a training's networks: the mean of their units, and the score of each."""

    threshold: float
    units: float
    scores: list[float]


def sweeps(study: dict[str, Any], runs: Path) -> dict[str, list[Point]]:
    """What pruning leaves, by training: a point per threshold, the least one first."""
    found = {}
    for name in (name for after in study.get("after", ()) if after["kind"] == "prune" for name in after["of"]):
        if seeds := [each["sweep"] for each in objects(runs / name, "prune")]:
            found[name] = [
                Point(of[0]["threshold"], statistics.fmean(p["units"] for p in of), [p["accuracy"] for p in of])
                for of in zip(*seeds, strict=True)
            ]
    return found


def finished(folder: Path) -> list[list[EpochResult]]:
    """The logs of a training, one per seed that is done."""
    return [read_log(log) for log in sorted(folder.glob("*.jsonl")) if log.with_suffix(".info.json").exists()]


def objects(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What a command printed after a training, one per seed that is done."""
    return [read(path) for path in sorted(folder.glob(f"*.{kind}.json"))]


def read(path: Path) -> dict[str, Any]:
    """An object of JSON."""
    return dict(json.loads(path.read_text()))


def spread(headline: str, scores: list[float]) -> str:
    """The mean over seeds, and the least and the greatest."""
    factor, digits, _ = DIGITS[headline]
    least, greatest = (f"{factor * bound(scores):.{digits}f}" for bound in (min, max))
    mean = f"{factor * statistics.fmean(scores):.{digits}f}"
    return f"{mean} ({least} to {greatest})" if len(scores) > 1 else mean


def parameters(folder: Path) -> int:
    """Parameters of the networks of a training: the most that a seed has, where pruning leaves different ones."""
    return int(max(info["parameters"] for info in objects(folder, "info")))


def markdown(rows: list[dict[str, str]]) -> str:
    """A table of rows by column; columns without any cell are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) for row in rows)]
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    head, *body = ("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)
    return "\n".join((head, f"|---|{'--:|' * (len(columns) - 1)}", *body))


if __name__ == "__main__":
    main()
