"""Measure all that there is to say of a network, or of several side by side, and make a page of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from daukit import offsets
from daukit.checkpoint import Checkpoint, build_model
from daukit.datasets import Layout, TaskName
from daukit.erf import ReceptiveField
from daukit.errors import DaukitError, naming
from daukit.files import check_output, write_atomic
from daukit.models.running import dtype_of, run
from daukit.offsets import LayerChanges, LayerDistributions, LayerSigmas, LayerWeights
from daukit.offsets.summaries import summarize_changes, summarize_displacements, summarize_sigmas
from daukit.preparation import prepare
from daukit.results import Progress
from daukit.workflows.choosing import stages
from daukit.workflows.erf import Inputs, fields_of, folder_inputs, noise_inputs
from daukit.workflows.erf_networks import ProbedNetwork, stored_network
from daukit.workflows.erf_results import NetworkFields
from daukit.workflows.evaluate import evaluate_checkpoint
from daukit.workflows.evaluate_results import Evaluation
from daukit.workflows.info import FileInfo, describe_file
from daukit.workflows.report_results import Missing, NetworkReport, NetworkTimes, Report, WeightSummary
from daukit.workflows.shapes import image_shape
from daukit.workflows.sweep import Sweep, sweep_thresholds
from daukit.workflows.timing import BATCH, time_forwards

THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
"""Of the pruning curve, unless others are asked for."""

IMAGES = 8
"""Images to measure receptive fields on, unless another number is asked for."""

SUFFIXES = (".html", ".htm")

Found = TypeVar("Found")


@dataclass
class MeasuredNetwork:
    """A network with everything that was measured of it.

    Attributes:
        checkpoint: its file.
        info: what is in that.
        displacements: where units are, by layer; none without DAU layers, as for the next two.
        sigmas: how wide they are.
        weights: how large their weights are.
        evaluation: what it scores, on images.
        sweep: what thresholds would leave.
        probed: the network with the layers of ``fields``.
        fields: effective receptive fields of layers.
        times: of its forward pass.
        changes: how the first network's units moved from here; None where they are others.
        missing: parts that could not be had.
        model: name or factory of its network, where the file names none of daukit's.
    """

    checkpoint: Checkpoint
    info: FileInfo
    displacements: list[LayerDistributions] = field(default_factory=list)
    sigmas: list[LayerSigmas] = field(default_factory=list)
    weights: list[LayerWeights] = field(default_factory=list)
    evaluation: Evaluation | None = None
    sweep: Sweep | None = None
    probed: ProbedNetwork | None = None
    fields: list[ReceptiveField] = field(default_factory=list)
    times: NetworkTimes | None = None
    changes: list[LayerChanges] | None = None
    missing: list[Missing] = field(default_factory=list)
    model: str | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, model: str | None) -> MeasuredNetwork:
        """What needs no images and no code of a network; ``model`` names one that is not daukit's."""
        model = None if "name" in checkpoint.header.architecture else model
        network = cls(checkpoint, describe_file(checkpoint, model=model), model=model)
        if checkpoint.layer_names:
            network.displacements = offsets.displacement_distributions(checkpoint)
            network.sigmas = offsets.sigma_distributions(checkpoint)
            network.weights = offsets.weight_distributions(checkpoint)
        return network

    def attempt(self, part: str, work: Callable[[], Found]) -> Found | None:
        """What ``work`` returns; where that fails, the reason is noted, and the rest of the report is made."""
        try:
            with naming(self.checkpoint.called):
                return work()
        except DaukitError as error:
            self.missing.append(Missing(part=part, reason=str(error)))
            return None

    def numbers(self) -> dict[str, Any]:
        """The fields of ``NetworkReport`` by name."""
        fields = None
        if self.probed is not None and self.fields:
            fields = NetworkFields.of(self.probed, self.fields)
        return {
            "info": self.info,
            "displacements": tuple(map(summarize_displacements, self.displacements)),
            "sigmas": tuple(map(summarize_sigmas, self.sigmas)),
            "weights": tuple(map(WeightSummary.of, self.weights)),
            "evaluation": self.evaluation,
            "pruning": self.sweep,
            "fields": fields,
            "time": self.times,
            "changes": None if self.changes is None else tuple(map(summarize_changes, self.changes)),
            "missing": tuple(self.missing),
        }


def make_report(
    checkpoint: Checkpoint,
    *,
    compare: Sequence[Checkpoint] = (),
    data: Path | None = None,
    layout: Layout | None = None,
    task: TaskName | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    images: int = IMAGES,
    size: tuple[int, int] | None = None,
    time: bool = False,
    model: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    output: Path | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Measure a network and those to compare it with, and write a page.

    A part that cannot be had, as receptive fields of a network whose code is not there, is left out with the reason.

    Args:
        checkpoint: the network.
        compare: others, which stand beside it.
        data: folder of images with labels, masks or sharp pictures, to measure scores and fields on its test images.
        layout: of the folder; default: found as by ``open_dataset``.
        task: what networks of the user's own are for; default: classification.
        thresholds: of the pruning curve.
        images: images to measure receptive fields on; 0: none are measured.
        size: (height, width) of the noise that takes their place without ``data``, and of the images that are timed,
            where the file does not tell them.
        time: measure the forward passes, as they are and prepared.
        model: as in ``daukit.load``, for files that do not name one of daukit's networks.
        device: where to compute.
        seed: of noise, and of the choice of images.
        output: file of the page, if any.
        overwrite: replace it if it exists.
        on_progress: told of progress.

    Raises:
        ValueError: a threshold outside [0, 1], or a ``layout`` or ``task`` that is not the network's.
        CheckpointError: a layer of a file is damaged; or scores of the first network cannot be measured.
        DataError: the folder or its files are wrong, or they and the first network do not fit.
        OutputError: the page cannot be written, or it exists and ``overwrite`` is False.
    """
    if output is not None:
        sources = [one.path for one in (checkpoint, *compare) if one.path is not None]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=SUFFIXES)
    networks = [MeasuredNetwork.of(one, model) for one in (checkpoint, *compare)]
    first, others = networks[0], networks[1:]
    for other in others:
        if first.displacements and other.displacements:
            moved = partial(offsets.displacement_changes, checkpoint, other.checkpoint)
            other.changes = other.attempt("moves of units", moved)
    parts = stages(on_progress, 2 * len(networks))
    for network in networks:
        how = {"layout": layout, "task": task, "model": network.model, "device": device}
        _score(network, thresholds, data, how, next(parts), needed=network is first)
    for network in networks:
        part = next(parts)
        if images:
            source = data, layout, images, size, seed
            _probe(network, first, source, device, part)
    if time:
        _time(networks, size, device)
    if output is not None:
        from daukit.page import render
        from daukit.workflows.report_page import page_of

        write_atomic(output, render(page_of(networks, data)).encode(), overwrite=overwrite)
    beside = tuple(NetworkReport(**other.numbers()) for other in others)
    return Report(**first.numbers(), data=data, compare=beside, output=output)


def _score(
    network: MeasuredNetwork,
    thresholds: Sequence[float],
    data: Path | None,
    how: dict[str, Any],
    on_progress: Progress | None,
    *,
    needed: bool,
) -> None:
    """What it scores on images, and what pruning leaves; where scores are not ``needed``, they may be missing."""
    first, second = stages(on_progress, 2)
    if data is not None:
        evaluate = partial(evaluate_checkpoint, network.checkpoint, data, **how, on_progress=first)
        network.evaluation = evaluate() if needed else network.attempt("scores", evaluate)
    if network.displacements:
        reads = {} if network.evaluation is None else {"data": data, **how, "on_progress": second}
        network.sweep = sweep_thresholds(network.checkpoint, thresholds, **reads)


def _probe(
    network: MeasuredNetwork,
    first: MeasuredNetwork,
    source: tuple[Path | None, Layout | None, int, tuple[int, int] | None, int],
    device: str,
    on_progress: Progress | None,
) -> None:
    """Effective receptive fields, of the first network's layers where there are such; of those that can be measured."""
    data, layout, images, size, seed = source
    like = () if first.probed is None else first.probed.layers

    def ready() -> tuple[ProbedNetwork, Inputs]:
        built = stored_network(network.checkpoint, model=network.model, device=device).probing(like=like)
        if data is None:
            return built, noise_inputs([built], images, size=size, seed=seed)
        return built, folder_inputs([built], data, images, layout=layout, seed=seed, device=device)

    def fields(probed: ProbedNetwork, inputs: Inputs) -> list[ReceptiveField]:
        return next(fields_of([probed], inputs, seed=seed, on_progress=on_progress))

    made = network.attempt("receptive fields", ready)
    if made is None:
        return
    network.probed, inputs = made
    try:
        network.fields = fields(*made)
    except DaukitError:  # one layer that nothing influences must not take the others along
        for layer in network.probed.layers:
            alone = replace(network.probed, layers=(layer,))
            network.fields += network.attempt(f"receptive field of {layer}", partial(fields, alone, inputs)) or []


def _time(networks: Sequence[MeasuredNetwork], size: tuple[int, int] | None, device: str) -> None:
    """Time those that can be timed, in turn."""
    tasks: dict[str, Any] = {}
    for i, network in enumerate(networks):
        built = network.attempt("times", partial(_built, network, size, device))
        if built is not None:
            module, prepared, shape = built
            tasks |= {f"{i} plain": (module, shape), f"{i} prepared": (prepared, shape)}
    times = time_forwards(tasks, device=device)
    for i, network in enumerate(networks):
        if f"{i} plain" in tasks:
            channels, height, width = tasks[f"{i} plain"][1]
            network.times = NetworkTimes(
                input=(BATCH, channels, height, width), plain=times[f"{i} plain"], prepared=times[f"{i} prepared"]
            )


def _built(of: MeasuredNetwork, size: tuple[int, int] | None, device: str) -> Any:
    """The network, the prepared one, and the shape of their images, on which both run."""
    module = build_model(of.checkpoint, model=of.model).to(device)
    shape, prepared = image_shape(of.checkpoint, module, size), prepare(module)
    for network in (module, prepared):
        run(network, torch.zeros(1, *shape, device=device, dtype=dtype_of(network)))
    return module, prepared, shape
