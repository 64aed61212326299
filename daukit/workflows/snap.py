"""Snap a checkpoint: move units to whole pixels, measure what that costs and saves, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, write
from daukit.checkpoint.file import stored_bytes
from daukit.datasets import Dataset, Layout, Split, TaskName, fitted, has_images, has_labels, open_images
from daukit.errors import DataError, naming
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.results import Count, Positive, Progress, Share
from daukit.snapping import LayerKept, LayerSnap, Matched, Target, snap
from daukit.workflows.evaluator import Evaluator
from daukit.workflows.headlines import named
from daukit.workflows.task_images import purpose_of
from daukit.workflows.timing import ForwardTimes, time_checkpoints

IMAGES = 256
"""Images that weights are refitted on."""

_PART = 256
"""Height and width, at most, of the parts that count of images of several sizes."""


@dataclass(frozen=True, kw_only=True)
class Snapping:
    """A network before and after its units were moved to whole pixels.

    Attributes:
        to: where units go: to the nearest whole pixel, or to the best one of those around.
        layers: layers whose units are at whole pixels now, in the network's order.
        kept: DAU layers that were left as they are.
        images: number of images that weights were refitted on; null where filters were matched.
        split: part of the folder that these images are from; null where filters were matched.
        accuracy_before: accuracy on the test images before, where images with labels were given.
        accuracy_rounded: the same with every unit at its nearest whole pixel and its old weight.
        accuracy_after: the same with the pixels and weights that units have now.
        mean_iou_before: as accuracy_before, but the mean IoU, if the network segments.
        mean_iou_rounded: as accuracy_rounded, if the network segments.
        mean_iou_after: as accuracy_after, if the network segments.
        psnr_before: as accuracy_before, but the PSNR in decibels, if the network deblurs.
        psnr_rounded: as accuracy_rounded, if the network deblurs.
        psnr_after: as accuracy_after, if the network deblurs.
        time: times of the forward pass, where they were asked for.
        bytes_before: size of the file that was snapped, or that a model in memory would make.
        bytes_after: size of the snapped file.
        output: path of the checkpoint written; null where none was.
    """

    to: Target
    layers: tuple[LayerSnap, ...]
    kept: tuple[LayerKept, ...]
    images: Count | None
    split: Split | None
    accuracy_before: Share | None = None
    accuracy_rounded: Share | None = None
    accuracy_after: Share | None = None
    mean_iou_before: Share | None = None
    mean_iou_rounded: Share | None = None
    mean_iou_after: Share | None = None
    psnr_before: Positive | None = None
    psnr_rounded: Positive | None = None
    psnr_after: Positive | None = None
    time: ForwardTimes | None = None
    bytes_before: Count
    bytes_after: Count
    output: Path | None


def snap_checkpoint(
    checkpoint: Checkpoint,
    *,
    to: Target = "best",
    layers: Sequence[str] | None = None,
    data: Path | None = None,
    layout: Layout | None = None,
    task: TaskName | None = None,
    match: Matched | None = None,
    images: int = IMAGES,
    time: bool = False,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    output: Path | None = None,
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Snapping:
    """Snap a checkpoint in memory, compare the network with what it was, and write it.

    Args:
        checkpoint: the network; it is not changed.
        to: as in ``daukit.snap``.
        layers: names of the layers to snap; default: all.
        data: folder of images, to refit weights on its training images, or on its test images where it has no
            others, and to measure the network on its test images if they have labels, masks or sharp pictures.
        layout: of ``data``; default: found as by ``open_dataset``.
        task: what a network of the user's own is for; default: classification.
        match: refit weights on ``"filters"`` or on ``"outputs"``; default: on outputs where there are images.
        images: how many images to refit on.
        time: measure the time of the forward pass before and after.
        size: (height, width) of the images to time, where the checkpoint does not tell them.
        seed: chooses the images, and the positions of outputs that count.
        output: file to write. If omitted, nothing is written.
        overwrite: replace ``output`` if it exists.
        model: as in ``daukit.load``.
        device: where to run the networks.
        on_progress: told of progress.

    Raises:
        ValueError: ``to`` is unknown, there are no images to match outputs on, or ``layout`` or ``task`` is not the
            network's.
        CheckpointError: a layer is missing or damaged, or the network cannot be built.
        DataError: the folder or its files are wrong, or they and the network do not fit.
        OutputError: ``output`` cannot be written, or it exists and ``overwrite`` is False.
    """
    if match == "outputs" and data is None:
        raise ValueError("outputs are matched on images; give data, or match filters")
    if images < 1:
        raise ValueError(f"weights are refitted on at least one image, got {images}")
    if output is not None:
        sources = [] if checkpoint.path is None else [checkpoint.path]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)
    options: dict[str, Any] = {"to": to, "layers": layers}
    measured: dict[str, Any] = {}
    purpose = purpose_of(checkpoint, task)
    labelled = data is not None and (match == "filters" or has_labels(data, "test", layout, task=purpose))
    part = _parts(on_progress, 2 if labelled else 1)
    if data is not None and labelled:
        evaluate = Evaluator(
            data, layout=layout, task=task, model=model, device=device, networks=3, on_progress=part("accuracy")
        )
        measured |= named(evaluate(checkpoint), "_before")
    if data is not None and match != "filters":
        split, inputs = _inputs(checkpoint, data, layout, purpose, images, seed)
        options |= {"inputs": inputs, "seed": seed, "model": model, "device": device}
        measured |= {"images": len(inputs), "split": split}
    with naming(checkpoint.called):
        after, report = snap(checkpoint, **options, on_progress=part("snap"))
    if labelled:
        rounded, _ = snap(checkpoint, to="nearest", layers=layers, refit=False)
        measured |= named(evaluate(rounded), "_rounded") | named(evaluate(after), "_after")
    if time:
        measured["time"] = time_checkpoints(checkpoint, after, size=size, model=model, device=device)
    written = stored_bytes(after) if output is None else write(after, output, overwrite=overwrite)
    before = stored_bytes(checkpoint) if checkpoint.file_size is None else checkpoint.file_size
    return Snapping(
        to=to, layers=report.layers, kept=report.kept, bytes_before=before, bytes_after=written, output=output,
        **{"images": None, "split": None, **measured},
    )  # fmt: skip


def _parts(on_progress: Progress | None, parts: int) -> Callable[[str], Progress]:
    """Make one progress of several ones that take turns, by their names."""
    done: dict[str, float] = {}

    def part(name: str) -> Progress:
        def update(share: float, words: str) -> None:
            done[name] = share
            if on_progress is not None:
                on_progress(sum(done.values()) / parts, words)

        return update

    return part


def _inputs(
    checkpoint: Checkpoint, data: Path, layout: Layout | None, purpose: TaskName, images: int, seed: int
) -> tuple[Split, Tensor]:
    """Randomly chosen images of a folder as the network takes them, and the part of the folder that they are from."""
    preprocessing = checkpoint.header.preprocessing
    split: Split = "train" if has_images(data, "train", layout, task=purpose) else "test"
    if preprocessing is None:
        raise DataError(
            f"{checkpoint.called}: carries no preprocessing, so its input is unknown; save it with "
            "daukit.save(preprocessing=...)"
        )
    found = open_images(data, split, layout, task=purpose, channel_order=preprocessing.channel_order)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(found), generator=generator)[:images]
    if found.info.sizes_differ:
        pixels = _parts_of(found, chosen, generator)
    else:
        pixels = fitted(found, preprocessing).batch(chosen).images
    if pixels.shape[1] != len(preprocessing.mean):
        raise DataError(
            f"{checkpoint.called}'s network takes {len(preprocessing.mean)} channels, the images of {data} have "
            f"{pixels.shape[1]}"
        )
    return split, preprocessing.normalize(pixels)


def _parts_of(found: Dataset, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """A part of each image, anywhere in it, all of the size that the smallest image allows: (N, C, H, W) uint8."""
    parts = []
    for i in chosen:
        pixels = found.batch(i[None]).images  # (1, C, h, w)
        height, width = (min(_PART, side) for side in pixels.shape[2:])
        top, left = (
            int(torch.randint(whole - part + 1, (), generator=generator))
            for whole, part in zip(pixels.shape[2:], (height, width), strict=True)
        )
        parts.append(pixels[..., top : top + height, left : left + width])
    height, width = (min(part.shape[axis] for part in parts) for axis in (2, 3))
    return torch.cat([part[..., :height, :width] for part in parts])
