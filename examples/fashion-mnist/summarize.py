"""The tables and the figure of docs/results.md, from what compare.sh left: python summarize.py RUNS FIGURE."""

import json
import sys
from pathlib import Path

from daukit.plots.pruning import Curve, plot_accuracy
from daukit.workflows.outputs import save_figure

SIGMAS = {"0.3": "sigma0.3", "0.5": "k2", "0.8": "sigma0.8", "learned per layer": "learned"}
UNITS = (1, 2, 4, 6)


def accuracies(folder: Path) -> list[float]:
    """Test accuracy after the last epoch, a number a seed."""
    logs = sorted(folder.glob("*.jsonl"))
    return [json.loads(log.read_text().splitlines()[-1])["test_accuracy"] for log in logs]


def sweeps(folder: Path) -> list[list[dict]]:
    """Points of the pruned networks, a list a seed."""
    return [json.loads(path.read_text())["sweep"] for path in sorted(folder.glob("*.json"))]


def text(values: list[float]) -> str:
    return ", ".join(f"{100 * value:.2f}" for value in values)


def main(runs: Path, figure: Path) -> None:
    print("| network | units | test accuracy, % |\n|---|---|---|")
    print(f"| 3x3 convolutions | - | {text(accuracies(runs / 'conv'))} |")
    for units in UNITS:
        total = sweeps(runs / f"k{units}")[0][0]["units"]
        print(f"| K = {units} | {total:,} | {text(accuracies(runs / f'k{units}'))} |")

    print("\n| sigma | test accuracy, % |\n|---|---|")
    for sigma, name in SIGMAS.items():
        print(f"| {sigma} | {text(accuracies(runs / name))} |")

    thresholds = [point["threshold"] for point in sweeps(runs / "k2")[0]]
    print(f"\n| network | {' | '.join(f'{t:g}' for t in thresholds)} |\n|---|{'---|' * len(thresholds)}")
    curves = []
    for units in UNITS:
        points = sweeps(runs / f"k{units}")[0]
        cells = " | ".join(f"{p['units']:,}: {100 * p['accuracy']:.2f}" for p in points)
        print(f"| K = {units} | {cells} |")
        counts, accuracy = [p["units"] for p in points], [p["accuracy"] for p in points]
        curves.append(Curve(f"K = {units}", thresholds, counts, accuracy))
    save_figure(plot_accuracy(curves), figure, overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
