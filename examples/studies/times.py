"""Time the networks of a study beside each other: ``python times.py STUDY.toml RUNS [--rounds 31]``.

Networks are those of the first seed. A step is a forward and a backward of 32 images in training mode; a forward is one
of the prepared network, both by one thread. All take turns, so that only ratios mean something: medians, beside the
first row of the first table. Each works twice in its turn, and the second time counts: caches hold what is its own
then, as in a training, and not what the one before left. They go to ``RUNS/times.json``; what is there of networks
whose files are not stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from daukit import load, prepare
from daukit.benchmark.timing import interleave
from daukit.models import record_of
from daukit.models.inputs import noise_for
from daukit.training.toml import parse_toml

IMAGES = 32


def main() -> None:
    """Time what is there, and write the ratios."""
    parser = argparse.ArgumentParser(description="Time the networks of a study beside each other.")
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = parse_toml(arguments.study.read_text())
    files = {name: arguments.runs / name / "0.safetensors" for name in study["trainings"]}
    files = {name: file for name, file in files.items() if file.exists()}
    first = next(iter(study["tables"][0]["rows"]))
    if first not in files:
        parser.error(f"{arguments.runs / first / '0.safetensors'}: there is no such file, and ratios are to its times")
    result = arguments.runs / "times.json"
    ratios: dict[str, dict[str, float]] = json.loads(result.read_text()) if result.exists() else {}
    ratios |= {name: {} for name in files}
    for kind, task in (("step", step), ("forward", forward)):
        times = second_times({name: task(file) for name, file in files.items()}, arguments.rounds)
        for name, taken in times.items():
            ratios[name][kind] = taken / times[first]
    ordered = {name: ratios[name] for name in study["trainings"] if name in ratios}
    result.write_text(json.dumps(ordered, indent=1) + "\n")


def second_times(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each task when it has just been done."""
    twice = {f"{name} {turn}": task for name, task in tasks.items() for turn in (1, 2)}
    times = interleave(twice, rounds)
    return {name: times[f"{name} 2"].median for name in tasks}


def step(file: Path) -> Callable[[], object]:
    """Make a task that does a training step's forward and backward."""
    network = load(file).train()
    images = example(network)

    def task() -> None:
        network(images).square().mean().backward()

    return task


def forward(file: Path) -> Callable[[], object]:
    """Make a task that runs the prepared network."""
    network = load(file)
    images, prepared = example(network), prepare(network.eval())

    def task() -> torch.Tensor:
        with torch.no_grad():
            return prepared(images)  # type: ignore[no-any-return]

    return task


def example(network: torch.nn.Module) -> torch.Tensor:
    """Noise of the size that the network was trained at."""
    record = record_of(network)
    assert record is not None and record.preprocessing is not None
    height, width = record.preprocessing.input_size
    return noise_for(network, IMAGES, (height, width), seed=0)


if __name__ == "__main__":
    main()
