"""Time what a training does: reading pictures, changing them at random, steps, and the loop around all of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import nn

from daukit.benchmark import machine, quartiles
from daukit.datasets import Batch, Dataset, Layout, PictureFolder, fitted, read_all
from daukit.errors import DataError
from daukit.nn import project_displacements
from daukit.results import Positive, Progress, Size
from daukit.tasks import make_task, preprocessing_of
from daukit.training import Batches, RunFiles, TrainingOptions, make_optimizer, train
from daukit.transforms import Cropped, MirrorAndShift, first_of, for_training, is_cropped
from daukit.workflows.bench import Machine, Times
from daukit.workflows.train_networks import new_network
from daukit.workflows.train_sets import DEFAULT_MODEL, AnyTask, check_changes, open_sets, task_to_train

STEPS = 6
"""Steps of a timed loop, of which the first is not counted: it comes after other work."""

_RATE = 1e-6
"""Learning rate: a step takes as long at any rate, and at this one no network diverges before the end."""


@dataclass(frozen=True, kw_only=True)
class DataTimes:
    """Times of what a training does.

    Attributes:
        machine: where they were measured.
        data: folder of the images.
        model: the network that learns.
        batch_size: images per step.
        times: times for the images of a step, by task: "reading" decodes them, "reading and changes" makes a batch of
            them, "step" is the network's step alone, "bare loop" and "daukit train" do all of it.
        images_per_second: the same as rates.
        loop_ratio: time of a step in daukit's loop over that in a bare one, the median over pairs of runs.
    """

    machine: Machine
    data: Path
    model: str
    batch_size: Size
    times: Times
    images_per_second: dict[str, Positive]
    loop_ratio: Positive


def time_data(
    data: Path,
    *,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    layout: Layout | None = None,
    batch_size: int = 32,
    crop: tuple[int, int] | None = None,
    rounds: int = 9,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> DataTimes:
    """Time reading, changes, steps and loops on a folder of images, interleaved in one run.

    Args:
        data: folder of images, as for training.
        model: a name of ``daukit.models`` or a factory; default: that of training.
        config: its options.
        layout: of ``data``; default: found as by ``open_dataset``.
        batch_size: images per step.
        crop: as in training.
        rounds: interleaved rounds.
        seed: of the network, the order and the changes.
        device: where to train.
        on_progress: called with the share done.

    Raises:
        ValueError: the layout is of another task, or crops are named for a classifier.
        TypeError: the network takes no such option.
        DataError: the data are missing or damaged, or do not fit the network.
    """
    called = model or DEFAULT_MODEL
    options = TrainingOptions(epochs=1, batch_size=batch_size, mirror=True, seed=seed, lr=_RATE)
    purpose = task_to_train(called, config)
    check_changes(purpose, options, crop=crop, layout=layout)
    whole, test_set = open_sets(purpose, data, options, crop=crop, layout=layout)
    torch.manual_seed(seed)
    network = new_network(called, config or {}, whole)
    task = make_task(purpose, preprocessing_of(network, called), whole.info)
    steps = min(STEPS, len(whole) // batch_size)
    if steps < 2:
        raise DataError(f"{data}: has {len(whole)} images, too few for two batches of {batch_size}")
    whole = first_of(whole, steps * batch_size)
    images = for_training(whole, task.preprocessing, "area", mirror=True)
    test_set = fitted(first_of(test_set, 1), task.preprocessing)
    task.check_fits(network.to(device).eval(), images, device, network=called, images=f"the images of {data}")
    timed = _Timed(network, task, images, test_set, options, device)
    tasks = {
        "reading": timed.reading(whole),
        "reading and changes": timed.changes,
        "step": timed.step,
        "bare loop": timed.bare_loop,
        "daukit train": timed.daukit_train,
    }
    seconds = _interleaved(tasks, rounds, on_progress)
    times = {name: quartiles([1e3 * one for one in taken]) for name, taken in seconds.items()}
    pairs = zip(seconds["daukit train"], seconds["bare loop"], strict=True)
    size = timed.batches.size
    return DataTimes(
        machine=Machine(**machine()),
        data=data,
        model=called,
        batch_size=size,
        times=times,
        images_per_second={name: 1e3 * size / time.median for name, time in times.items()},
        loop_ratio=median(ours / bare for ours, bare in pairs),
    )


def _interleaved(
    tasks: Mapping[str, Callable[[], float]], rounds: int, on_progress: Progress | None
) -> dict[str, list[float]]:
    """Seconds that each task says a batch takes, in turn after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            taken = task()
            if number:
                seconds[name].append(taken)
        if on_progress is not None:
            on_progress((number + 1) / (rounds + 1), f"round {number} of {rounds}")
    return seconds


class _Timed:
    """What is timed: each method does the work of some steps and returns the seconds that one took."""

    def __init__(
        self, network: nn.Module, task: AnyTask, images: Dataset, test_set: Dataset, options: TrainingOptions,
        device: str,
    ) -> None:  # fmt: skip
        self._network, self._task, self._images, self._test_set = network, task, images, test_set
        self._options, self._device = options, device
        change = MirrorAndShift(options.mirror and not is_cropped(images))
        self.batches = Batches(images, options.batch_size, change, options.seed, device)
        self._optimizer = make_optimizer(network, options, len(self.batches))
        self._ready = next(iter(self.batches.epoch(0)))

    def reading(self, whole: Dataset) -> Callable[[], float]:
        """Make the task that decodes pictures at their sizes."""
        raw = whole.dataset if isinstance(whole, Cropped) else whole
        raw = replace(raw, view=_as_it_is) if isinstance(raw, PictureFolder) else raw
        places = range(self.batches.size)

        def read() -> float:
            start = time.perf_counter()
            read_all(lambda place: raw.batch(slice(place, place + 1)), places)
            return time.perf_counter() - start

        return read

    def changes(self) -> float:
        """Make the batches of an epoch."""
        start = time.perf_counter()
        for _ in self.batches.epoch(0):
            pass
        return (time.perf_counter() - start) / len(self.batches)

    def step(self) -> float:
        """Do steps with a batch that is there."""
        return self._steps([self._ready] * STEPS)

    def bare_loop(self) -> float:
        """Do the steps of an epoch as anybody would write them."""
        return self._steps(self.batches.epoch(0))

    def daukit_train(self) -> float:
        """Do the same steps as ``daukit train``."""
        ends: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            files = RunFiles(Path(folder) / "network.safetensors")
            train(
                self._network, self._task, self._images, self._test_set, self._options, device=self._device,
                resume_path=files.state, log_path=files.log, on_step=lambda *_: ends.append(self._now()),
            )  # fmt: skip
        self._network.to(self._device)
        return _per_step(ends)

    def _steps(self, batches: Iterable[Batch]) -> float:
        self._network.train()
        ends = []
        for batch in batches:
            self._optimizer.zero_grad()
            self._task.loss(self._network, batch).backward()
            self._optimizer.step()
            project_displacements(self._network)
            ends.append(self._now())
        return _per_step(ends)

    def _now(self) -> float:
        if torch.device(self._device).type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _per_step(ends: Sequence[float]) -> float:
    """Seconds from the end of a step to the next; what comes before the first one belongs to no step."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _as_it_is(picture: Image.Image, index: int) -> Image.Image:
    return picture
