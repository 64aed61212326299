"""Pictures of what networks say of a data set: the paper's Fig. 9 and 11, and the wrong answers of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from daukit.datasets import Batch, Dataset
from daukit.evaluation.loop import batches
from daukit.plots.palette import IGNORED, Color, class_colors
from daukit.tasks.deblurring import DeblurringMetrics
from daukit.texts import visible
from daukit.workflows.labels import labels_of
from daukit.workflows.task_networks import TaskNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from daukit.plots.pictures import Panel

_IN_A_ROW = 6
"""Images of a classifier side by side."""

_LONGEST = 1400
"""Pixels along a side that a figure shows at most: larger pictures are kept smaller, as there may be a hundred."""


def check_comparable(networks: Sequence[TaskNetwork]) -> None:
    """Raise ``ValueError`` unless all networks have the first one's task and classes."""
    first = networks[0]
    for other in networks[1:]:
        if other.purpose != first.purpose:
            raise ValueError(f"{first.called} is for {first.purpose}, and {other.called} for {other.purpose}")
        ours, theirs = first.preprocessing.class_names, other.preprocessing.class_names
        if ours and theirs and ours != theirs:
            raise ValueError(f"{first.called} and {other.called} have other classes, or in another order")


def draw_results(
    networks: Sequence[TaskNetwork], sets: Sequence[Dataset], count: int, device: str, labels: Sequence[str] = ()
) -> Figure:
    """Draw some pictures of a data set, and what networks say of each.

    Args:
        networks: comparable ones.
        sets: the same images as each of them takes them.
        count: how many: evenly spread over the data set; of a classifier the first ones that ``networks[0]`` gets
            wrong, if there are some.
        device: where to compute.
        labels: what to call the networks; default: by their files.

    Raises:
        DataError: a picture cannot be read, or does not fit a network.
    """
    from daukit.plots.pictures import plot_pictures  # which imports matplotlib; most calls draw nothing

    purpose = networks[0].purpose
    names = labels or labels_of([one.file or one.called for one in networks], endings=False)
    with torch.no_grad():
        if purpose == "classification":
            columns = _answers(networks, sets, names, count, device)
            return plot_pictures(columns, [""], most=_IN_A_ROW)
        chosen = spread(len(sets[0]), count)
        if purpose == "deblurring":
            columns = [_sharpened(networks, sets, i, device) for i in chosen]
            return plot_pictures(columns, ["blurred", *names, "sharp"])
        return _segmented(networks, sets, names, chosen, device)


def spread(number: int, count: int) -> list[int]:
    """The places of ``count`` images of ``number``: the middles of equal parts, or all where there are fewer."""
    count = min(count, number)
    return [(2 * i + 1) * number // (2 * count) for i in range(count)]


def _segmented(
    networks: Sequence[TaskNetwork], sets: Sequence[Dataset], names: Sequence[str], chosen: Sequence[int], device: str
) -> Figure:
    from daukit.plots.pictures import Panel, plot_pictures

    info = sets[0].info
    classes, ignored = max(info.num_classes, 1), info.ignore_index
    columns, seen = [], set()
    for i in chosen:
        said = [_prediction(network, own, i, device).argmax(1)[0] for network, own in zip(networks, sets, strict=True)]
        truth = _one(sets[0], i, "cpu").targets[0]
        labels = [_nearest(map.int().cpu().numpy()) for map in (truth, *said)]
        seen |= {int(label) for map in labels for label in np.unique(map)}
        classes = max(classes, 1 + max(int(map.max()) for map in labels[1:]))
        columns.append((_shown(networks[0], sets[0], i), labels))
    colors = np.array(class_colors(classes) + (256 - classes) * [IGNORED], dtype=np.uint8)
    if ignored < classes:
        colors[ignored] = IGNORED
    panels = [
        [Panel(shown), *(Panel(colors[map], exact=True) for map in labels)] for shown, labels in columns
    ]  # fmt: skip
    told: list[tuple[str, Color]] = [
        (_class_name(info.class_names, i), (int(colors[i, 0]), int(colors[i, 1]), int(colors[i, 2])))
        for i in sorted(seen)
        if i < classes and i != ignored
    ]
    if ignored in seen:
        told.append(("not counted", IGNORED))
    return plot_pictures(panels, ["picture", "truth", *names], told)


def _sharpened(networks: Sequence[TaskNetwork], sets: Sequence[Dataset], i: int, device: str) -> list[Panel]:
    from daukit.plots.pictures import Panel

    batch = _one(sets[0], i, device)
    order = networks[0].preprocessing.channel_order
    panels = [Panel(_for_display(batch.images[0], order), (_decibels(batch.images / 255, batch.targets),))]
    for network, own in zip(networks, sets, strict=True):
        found, wanted = _prediction(network, own, i, device), _one(own, i, device).targets
        pixels = _for_display((found[0] * 255).round().byte(), network.preprocessing.channel_order)
        panels.append(Panel(pixels, (_decibels(found, wanted),)))
    return [*panels, Panel(_for_display(batch.targets[0], order))]


def _decibels(found: Tensor, sharp: Tensor) -> str:
    metrics = DeblurringMetrics()
    metrics.add(found, sharp)
    return f"{metrics.result().psnr:.2f} dB"


def _answers(
    networks: Sequence[TaskNetwork], sets: Sequence[Dataset], names: Sequence[str], count: int, device: str
) -> list[list[Panel]]:
    from daukit.plots.pictures import Panel

    first, labels = networks[0], sets[0].info.class_names or networks[0].preprocessing.class_names
    columns = []
    for i in _first_wrong(first, sets[0], count, device) or spread(len(sets[0]), count):
        truth = int(_one(sets[0], i, "cpu").targets[0])
        said = [int(_prediction(n, own, i, device).argmax(1)) for n, own in zip(networks, sets, strict=True)]
        who = ["said"] if len(names) == 1 else [f"{name}:" for name in names]
        told = [f"{name} {_class_name(labels, answer)}" for name, answer in zip(who, said, strict=True)]
        lines = (f"is {_class_name(labels, truth)}", *told)
        wrong = frozenset(k + 1 for k, answer in enumerate(said) if answer != truth)
        columns.append([Panel(_shown(first, sets[0], i), lines, wrong)])
    return columns


def _first_wrong(network: TaskNetwork, images: Dataset, count: int, device: str) -> list[int]:
    """The places of the first images that the network gets wrong, ``count`` at most."""
    task, found, start = network.task(images.info), [], 0
    for done, batch in batches(images, device=device):
        wrong = task.predict(network.module, batch.images).argmax(1) != batch.targets
        found += [start + place for place in wrong.nonzero().flatten().tolist()]
        if len(found) >= count:
            break
        start = done
    return found[:count]


def _prediction(network: TaskNetwork, images: Dataset, i: int, device: str) -> Tensor:
    return network.task(images.info).predict(network.module, _one(images, i, device).images)


def _one(images: Dataset, i: int, device: str) -> Batch:
    return images.batch(slice(i, i + 1)).to(device)


def _shown(network: TaskNetwork, images: Dataset, i: int) -> NDArray[np.uint8]:
    return _for_display(_one(images, i, "cpu").images[0], network.preprocessing.channel_order)


def _for_display(pixels: Tensor, channel_order: str) -> NDArray[np.uint8]:
    """(H, W, 3), red first, of (C, H, W) in the order of a network."""
    pixels = pixels.cpu()
    if channel_order == "gray":
        pixels = pixels.expand(3, -1, -1)
    elif channel_order == "bgr":
        pixels = pixels.flip(0)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    height, width = _size_shown(image.height, image.width)
    return np.array(image.resize((width, height), Image.Resampling.BOX))


def _nearest(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """A map of labels (H, W) in the size of what ``_for_display`` makes of its picture."""
    rows, columns = (
        (np.arange(n) * size) // n for n, size in zip(_size_shown(*labels.shape), labels.shape, strict=True)
    )
    kept: NDArray[np.int32] = labels[rows[:, None], columns]
    return kept


def _size_shown(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, _LONGEST / max(height, width))
    return max(1, round(factor * height)), max(1, round(factor * width))


def _class_name(names: Sequence[str], i: int) -> str:
    return visible(names[i]) if i < len(names) else str(i)
