"""Measure the effective receptive fields of one network or of several, on noise or on images of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from daukit.datasets import Layout, open_dataset, title_of
from daukit.distributed import ALONE, Ranks
from daukit.erf import About, Measure, ReceptiveField, effective_receptive_field, fitting_size, random_inputs
from daukit.erf.images import load_pictures
from daukit.errors import DataError, in_words_of_caller, naming
from daukit.models.running import dtype_of
from daukit.preprocessing import Preprocessing
from daukit.results import Progress
from daukit.workflows.erf_images import OF_ONE_SIZE, layout_to_measure, pictures_to_measure
from daukit.workflows.erf_networks import ProbedNetwork, check_comparable
from daukit.workflows.erf_outputs import draw_fields, write_archive
from daukit.workflows.erf_results import MeasuredFields, NetworkFields
from daukit.workflows.labels import check_labels
from daukit.workflows.outputs import save_figure

START_SIZE = (64, 64)
"""Size of the first noise for a network whose file does not state the size of its input."""


@dataclass(frozen=True)
class Inputs:
    """Images to measure receptive fields on.

    Attributes:
        tensors: (N, C, H, W) of each network, as it takes them.
        folder: where they come from; None: noise.
    """

    tensors: Sequence[Tensor]
    folder: Path | None = None


def noise_inputs(
    networks: Sequence[ProbedNetwork],
    images: int,
    *,
    size: tuple[int, int] | None = None,
    tokens: tuple[int, int] | None = None,
    seed: int = 0,
) -> Inputs:
    """Draw noise of one size for all networks.

    Args:
        networks: with their layers.
        images: number of images.
        size: (height, width); default: the least that holds the fields of all networks, as in ``fitting_size``.
        tokens: as in ``effective_receptive_field``.
        seed: of the noise.

    Raises:
        CheckpointError: a network fails on noise, or nothing tells how many channels its input has.
    """
    if size is None:
        sizes = []
        for network in networks:
            start = network.preprocessing.input_size if network.preprocessing else START_SIZE
            with naming(network.label):
                sizes.append(fitting_size(network.module, list(network.layers), start, seed, tokens))
        size = max(height for height, _ in sizes), max(width for _, width in sizes)
    tensors = []
    for network in networks:
        with naming(network.label):
            tensors.append(random_inputs(network.module, images, size, seed))
    return Inputs(tensors)


def folder_inputs(
    networks: Sequence[ProbedNetwork],
    folder: Path,
    images: int,
    *,
    layout: Layout | None = None,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    seed: int = 0,
    device: str = "cpu",
) -> Inputs:
    """Read images of a folder and preprocess them as each network's file states.

    Args:
        networks: they decide size and channels.
        folder: of any layout, whatever the networks are for, whose test images count; or of PNG and JPEG files.
        images: number of images; all where there are fewer.
        layout: of the folder; default: found by the names of its files.
        size: (height, width) to give pictures, in place of the size that the file states.
        mean: of pixels in [0, 1] by channel, in place of what the file states; with ``std``.
        std: their standard deviation.
        seed: of the choice of images.
        device: where the networks are.

    Raises:
        ValueError: there is no such layout, or a size is missing, or given for images that have their own.
        DataError: the images cannot be read, a network takes others, or its file does not state the preprocessing.
    """
    layout = layout_to_measure(folder, layout)
    has_size = layout in OF_ONE_SIZE
    pictures = None if layout is None or has_size else pictures_to_measure(folder, layout)
    tensors = []
    for network in networks:
        preprocessing = _preprocessing(network, size, mean, std, has_size=has_size)
        if layout is not None and has_size:
            if size is not None:
                raise ValueError(f"the images of {title_of(layout)} have their own size")
            dataset = open_dataset(folder, "test", layout)
            chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:images]
            pixels = dataset.batch(chosen).images
        else:
            shape, order = size or preprocessing.input_size, preprocessing.channel_order
            pixels = load_pictures(folder, images, shape, order, seed, only=pictures)
        if len(preprocessing.mean) != pixels.shape[1]:
            channels = f"{len(preprocessing.mean)} channels, those of {folder} have {pixels.shape[1]}"
            raise DataError(f"{network.label}: takes images of {channels}; give it others")
        tensors.append(preprocessing.normalize(pixels.to(device)).to(dtype_of(network.module)))
    return Inputs(tensors, folder)


def _preprocessing(
    network: ProbedNetwork,
    size: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    has_size: bool,
) -> Preprocessing:
    stated = network.preprocessing
    if not mean:
        if stated is None:
            options = in_words_of_caller("mean and std (and size)", "--mean and --std (and --size)")
            raise DataError(f"{network.label}: says nothing of how images become its input; give {options}")
        return stated
    if stated is None and size is None and not has_size:
        raise ValueError(f"{network.label} does not tell its input size")
    order = "gray" if len(mean) == 1 else stated.channel_order if stated else "rgb"
    return Preprocessing(mean, std, order, size or (stated.input_size if stated else START_SIZE))


def measure_fields(
    networks: Sequence[ProbedNetwork],
    inputs: Inputs,
    *,
    measure: Measure = "absolute",
    about: About = "center",
    tokens: tuple[int, int] | None = None,
    probes: int | None = None,
    until_stable: float | None = None,
    seed: int = 0,
    crop: bool = True,
    batch_size: int | None = None,
    figure: Path | None = None,
    width: Literal["page", "column"] = "page",
    npz: Path | None = None,
    labels: Sequence[str] = (),
    overwrite: bool = False,
    on_progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> MeasuredFields:
    """Measure the effective receptive fields of networks, and write a figure and the maps where asked to.

    Args:
        networks: with their layers; the first one and those to compare it with.
        inputs: images for each of them.
        measure: this and what follows up to ``batch_size`` as in ``daukit.effective_receptive_field``.
        about: the point that distances are measured from.
        tokens: (height, width) of outputs (N, tokens, C).
        probes: number of random mixtures of channels.
        until_stable: share of the radius at which to stop.
        seed: of mixtures and resampling.
        crop: compute only the part of the input that matters.
        batch_size: images times channels at once.
        figure: file to draw to, if any.
        width: of the figure in a paper.
        npz: NumPy archive to write the maps to, if any.
        labels: what to call the networks in the figure; default: by their files.
        overwrite: replace files that exist.
        on_progress: told of progress.
        ranks: the processes that divide the images; the first one writes.

    Raises:
        ValueError: the networks have different numbers of layers, or ``labels`` do not tell them apart.
        CheckpointError: a network cannot be measured.
        OutputError: a file cannot be written.
    """
    check_comparable(networks)
    check_labels(labels, len(networks))
    fields = list(
        fields_of(
            networks, inputs, measure=measure, about=about, tokens=tokens, probes=probes, until_stable=until_stable,
            seed=seed, crop=crop, batch_size=batch_size, on_progress=on_progress, ranks=ranks,
        )
    )  # fmt: skip
    called: Sequence[str | None] = labels or [None] * len(networks)
    results = tuple(NetworkFields.of(*each) for each in zip(networks, fields, called, strict=True))
    if npz is not None and ranks.is_writer:
        write_archive(fields, npz, overwrite=overwrite)
    if figure is not None and ranks.is_writer:
        save_figure(draw_fields(results, fields, width), figure, overwrite=overwrite)
    count, _, *size = inputs.tensors[0].shape
    return MeasuredFields(
        **vars(results[0]), measure=measure, probes=probes, images_limit=count, until_stable=until_stable, about=about,
        tokens=tokens, size=(size[0], size[1]), seed=seed, data=inputs.folder, output=figure, npz=npz,
        compare=results[1] if len(results) > 1 else None, networks=results,
    )  # fmt: skip


def fields_of(
    networks: Sequence[ProbedNetwork],
    inputs: Inputs,
    *,
    on_progress: Progress | None = None,
    measure: Measure = "absolute",
    **how: Any,
) -> Iterator[list[ReceptiveField]]:
    """Measure the effective receptive fields of networks, one network after the other.

    Args:
        networks: with their layers.
        inputs: images for each of them.
        on_progress: told of progress.
        measure: as in ``daukit.effective_receptive_field``.
        how: its other arguments.

    Raises:
        CheckpointError: a network cannot be measured.
    """
    for i, (network, images) in enumerate(zip(networks, inputs.tensors, strict=True)):

        def on_batch(done: int, total: int, i: int = i, network: ProbedNetwork = network) -> None:
            if on_progress is not None:
                on_progress((i + done / total) / len(networks), Path(network.label).name)

        with naming(network.label):
            yield effective_receptive_field(network.module, network.layers, images, measure, on_batch=on_batch, **how)
