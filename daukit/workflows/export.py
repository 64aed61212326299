"""Export a checkpoint's network for other programs: as ONNX, checked by onnxruntime before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daukit import baking
from daukit.benchmark import Quartiles, interleave
from daukit.checkpoint import Checkpoint, build_model
from daukit.errors import CheckpointError, DaukitError, NetworkError, in_words_of_caller, naming
from daukit.export import FromPixels, OnnxNetwork, OnnxSession, to_onnx
from daukit.export.onnx import check_installed
from daukit.files import check_output, write_atomic
from daukit.models.running import run
from daukit.preparation import prepare
from daukit.results import Count, Positive, Size
from daukit.workflows.bake import BakedLayer, baked_layers, notes_of
from daukit.workflows.shapes import image_shape

SUFFIX = ".onnx"

LIMIT = 1e-5
"""Largest difference that onnxruntime may show, as a share of the largest output."""

ROUNDS = 9
_TIMED = 8
"""Images at a time."""


@dataclass(frozen=True, kw_only=True)
class RuntimeTimes:
    """Times of a forward pass, measured in turn.

    Attributes:
        input: sizes (batch, channels, height, width) of the input.
        network: of the network, by torch and daukit's kernels.
        prepared: of the network as `daukit.prepare` makes it.
        baked: of the network with plain convolutions, by torch.
        onnxruntime: of the file, by onnxruntime on the CPU.
    """

    input: tuple[Size, Size, Size, Size]
    network: Quartiles
    prepared: Quartiles
    baked: Quartiles
    onnxruntime: Quartiles


@dataclass(frozen=True, kw_only=True)
class OnnxExport:
    """A network as an ONNX file.

    Attributes:
        layers: the DAU layers, which are plain convolutions in the file.
        opset: version of ONNX's operators.
        input: axes of the input: names where they are free, numbers where they are not.
        pixels: whether the file takes pixels, and does the preprocessing itself.
        checked: sizes of the images on which onnxruntime was compared with the network.
        difference: largest difference there, as a share of the largest output; null where it was not asked for.
        time: times of the forward pass, where they were asked for.
        output: path of the file written; null where none was.
        bytes_before: size of the checkpoint.
        bytes_after: size of the file.
    """

    layers: tuple[BakedLayer, ...]
    opset: Size
    input: tuple[str | Size, ...]
    pixels: bool
    checked: tuple[tuple[Size, Size, Size, Size], ...]
    difference: Positive | None
    time: RuntimeTimes | None = None
    output: Path | None
    bytes_before: Count | None
    bytes_after: Count


def export_onnx(
    checkpoint: Checkpoint,
    output: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    with_preprocessing: bool = False,
    verify: bool = True,
    time: bool = False,
    model: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> OnnxExport:
    """Bake a checkpoint's network, export it as ONNX in float32, compare both, and write the file.

    The number of images is free, and so is their size where the network takes others. The file's metadata has the
    checkpoint's header, with the preprocessing.

    Args:
        checkpoint: any network.
        output: the file to write, an ``.onnx``; None writes nothing.
        size: (height, width) of the input, where the checkpoint does not tell them.
        with_preprocessing: let the file take pixels, uint8 as pictures have them, and do the preprocessing itself.
        verify: compare with onnxruntime, on three inputs, before anything is written.
        time: time onnxruntime beside the network.
        model: as in ``daukit.load``.
        seed: of the images.
        overwrite: whether ``output`` may exist.

    Raises:
        CheckpointError: the network cannot be built, baked, run or exported, nothing tells the size of its input, or
            its file has no preprocessing where that is to be in it.
        OutputError: ``output`` cannot be written.
        DaukitError: a package is missing, or onnxruntime's outputs differ.
    """
    if output is not None:
        sources = [] if checkpoint.path is None else [checkpoint.path]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=[SUFFIX])
    check_installed("onnx", "onnxscript", *(["onnxruntime"] if verify or time else []))
    network = build_model(checkpoint, model=model).float()
    shape = image_shape(checkpoint, network, size)
    preprocessing = checkpoint.header.preprocessing
    with naming(checkpoint.called):
        twin = baking.bake(network)
        layers = baked_layers(network, twin)
        if with_preprocessing:
            if preprocessing is None:
                raise CheckpointError(f"{checkpoint.called}: carries no preprocessing that could be in the file")
            network, twin = (FromPixels(each, preprocessing).eval() for each in (network, twin))
        images = partial(_images, pixels=with_preprocessing, seed=seed)
        made = partial(_exported, network, twin, shape, images, notes_of(checkpoint), verify=verify)
        exported, sizes, difference = made(free=_takes(twin, images((2, shape[0], *_larger(shape)))))
    result = OnnxExport(
        layers=layers,
        opset=exported.opset,
        input=exported.input,
        pixels=with_preprocessing,
        checked=tuple(sizes) if verify else (),
        difference=difference,
        time=_times(network, twin, exported.data, images((_TIMED, *shape))) if time else None,
        output=output,
        bytes_before=checkpoint.file_size,
        bytes_after=len(exported.data),
    )
    if output is not None:
        write_atomic(output, exported.data, overwrite=overwrite)
    return result


def _exported(
    network: nn.Module,
    twin: nn.Module,
    shape: tuple[int, int, int],
    images: Callable[[Sequence[int]], Tensor],
    notes: Mapping[str, str],
    *,
    verify: bool,
    free: bool,
) -> tuple[OnnxNetwork, list[tuple[int, int, int, int]], float | None]:
    """The file, the sizes of images to check it on, and how far it is from the network there.

    Where a file for any size cannot be had, because the network does something else at another, it is for this one.
    """
    channels, height, width = shape
    third = (channels, *_larger(shape)) if free else shape
    sizes = [(1, channels, height, width), (2, channels, height, width), (3, *third)]
    try:
        exported = to_onnx(twin, images((2, *shape)), free_size=free, notes=notes)
        difference = _check(network, exported.data, [images(size) for size in sizes]) if verify else None
    except (DaukitError, ValueError):
        if not free:
            raise
        return _exported(network, twin, shape, images, notes, verify=verify, free=False)
    return exported, sizes, difference


def _larger(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Twice the size: what divides it divides that, too."""
    return 2 * shape[1], 2 * shape[2]


def _images(size: Sequence[int], *, pixels: bool, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if pixels:
        return torch.randint(0, 256, tuple(size), generator=generator, dtype=torch.uint8)
    return torch.randn(tuple(size), generator=generator)


def _takes(network: nn.Module, images: Tensor) -> bool:
    try:
        run(network, images)
    except NetworkError:
        return False
    return True


def _check(network: nn.Module, data: bytes, inputs: Sequence[Tensor]) -> float:
    session = OnnxSession(data)
    # Through a tensor: Python's max may lose a NaN.
    difference = float(torch.tensor([session.difference(images, run(network, images)) for images in inputs]).max())
    if not difference <= LIMIT:
        skip = in_words_of_caller("verify=False", "--no-verify")
        raise DaukitError(
            f"onnxruntime's outputs differ by {difference:.2g} of the largest, where {LIMIT:g} is allowed; nothing was "
            f"written ({skip} writes it all the same)"
        )
    return difference


def _times(network: nn.Module, twin: nn.Module, data: bytes, images: Tensor) -> RuntimeTimes:
    session, prepared = OnnxSession(data, torch.get_num_threads()), prepare(network)
    tasks: dict[str, Any] = {
        "network": partial(run, network, images),
        "prepared": partial(run, prepared, images),
        "baked": partial(run, twin, images),
        "onnxruntime": partial(session, images),
    }
    batch, channels, height, width = images.shape
    return RuntimeTimes(input=(batch, channels, height, width), **interleave(tasks, ROUNDS))
