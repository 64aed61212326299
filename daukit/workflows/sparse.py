"""Make DAU layers of whole pixels of a pruned network's layers, and time both forms of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from daukit import benchmark
from daukit.benchmark import Quartiles
from daukit.checkpoint import Checkpoint, build_model, from_model
from daukit.checkpoint.file import stored_bytes
from daukit.errors import CheckpointError, in_words_of_caller, naming
from daukit.models import record_of
from daukit.models.running import copy_of, dtype_of, run
from daukit.preparation import prepare
from daukit.results import Count, Positive, Progress, Share, Size, result_of
from daukit.substitution import (
    Candidate,
    Candidates,
    KernelSize,
    Magnitude,
    SkippedLayer,
    SparseLayer,
    Where,
    put_sparse,
    sparse_candidates,
)
from daukit.workflows.convert import Conversion, Destination, written
from daukit.workflows.shapes import image_shape
from daukit.workflows.timing import BATCH, ROUNDS, ForwardTimes, time_networks


@dataclass(frozen=True, kw_only=True)
class FormTimes:
    """Times of a layer as it was and as units, measured in turn.

    Attributes:
        input: sizes (batch, channels, height, width) of its input, (vectors, features, 1, 1) of a linear layer's; of
            the first, where the network calls it on several.
        dense: of the convolution or linear layer.
        sparse: of the DAU layer.
        faster: the form with the lower median.
    """

    input: tuple[Size, Size, Size, Size]
    dense: Quartiles
    sparse: Quartiles
    faster: Literal["dense", "sparse"]


@dataclass(frozen=True, kw_only=True)
class ConvertedLayer(SparseLayer):
    """One layer whose nonzero weights are units, or could be.

    Attributes:
        converted: it became a DAU layer.
        time: times of both forms, where they were asked for and the network calls the layer.
    """

    converted: bool
    time: FormTimes | None = None


@dataclass(frozen=True, kw_only=True)
class SparseConversion(Conversion):
    """A network whose layers with zeros became DAU layers of whole pixels, with the same outputs.

    Attributes:
        source: always daukit.
        threshold: magnitude below which weights became zero; None where none was given.
        sparsity: share of zeros that was asked for; None where none was.
        everywhere: that share was one over all layers together.
        layers: convolutions and linear layers with zeros that can be DAU layers.
        skipped: those that stay as they are.
        weights: weights of the layers that became DAU layers.
        zeros: those of them that are zero, or became so.
        time: times of the network's forward pass, where they were asked for.
        bytes_before: size of the file that was read, or that a model in memory would make.
        bytes_after: size of the new file.
    """

    source: Literal["daukit"]
    threshold: Positive | None
    sparsity: Share | None
    everywhere: bool
    layers: tuple[ConvertedLayer, ...]
    skipped: tuple[SkippedLayer, ...]
    weights: Count
    zeros: Count
    time: ForwardTimes | None = None
    bytes_before: Count
    bytes_after: Count


def convert_sparse(
    checkpoint: Checkpoint,
    destination: Destination | None = None,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
    everywhere: bool = False,
    where: Where = None,
    kernel_size: KernelSize = None,
    time: bool = False,
    only_faster: bool = False,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    on_progress: Progress | None = None,
) -> SparseConversion:
    """Replace the layers of a checkpoint's network that have zeros by DAU layers of whole pixels.

    Args:
        checkpoint: a network; it is not changed.
        destination: where to write; None: only describe it.
        threshold: as in ``daukit.substitute``.
        sparsity: as in ``daukit.substitute``.
        everywhere: as in ``daukit.substitute``.
        where: as in ``daukit.substitute``.
        kernel_size: as in ``daukit.substitution.substitute_sparse``.
        time: time both forms of every layer, and the network before and after.
        only_faster: replace only layers that are faster as units, which times them.
        size: (height, width) of the images to time, where the checkpoint does not tell them.
        model: as in ``daukit.load``.
        on_progress: told of progress.

    Raises:
        CheckpointError: the network cannot be built or run, has no layer that can be replaced so, or none that
            would be faster, or nothing tells the size of its input.
        OutputError: the destination cannot be written.
    """
    if destination is not None:
        destination.check([] if checkpoint.path is None else [checkpoint.path])
    with naming(checkpoint.called):
        network = build_model(checkpoint, model=model)
        rule = Magnitude(threshold, sparsity, everywhere)
        candidates = sparse_candidates(network, rule, where=where, kernel_size=kernel_size)
    _check_some(checkpoint, candidates)
    shape = image_shape(checkpoint, network, size) if time or only_faster else None
    with naming(checkpoint.called):
        times = {} if shape is None else _time_layers(network, candidates, shape, on_progress)
    chosen = [name for name in candidates.layers if not only_faster or _is_faster(times.get(name))]
    if not chosen and destination is not None:
        raise CheckpointError(
            f"{checkpoint.called}: no layer would be faster as units on this machine, so nothing was written; drop "
            + in_words_of_caller("only_faster=True", "--only-faster")
        )
    before = None if shape is None else _as_timed(copy_of(network))
    put_sparse(network, candidates, chosen)
    record = record_of(network)
    if record is not None and chosen:
        record.history[-1]["source"] = checkpoint.digest
    whole = None if before is None or shape is None else time_networks(before, _as_timed(network), shape)
    return _described(checkpoint, network, destination, candidates, chosen, times, whole)


def _described(
    checkpoint: Checkpoint,
    network: nn.Module,
    destination: Destination | None,
    candidates: Candidates,
    chosen: Sequence[str],
    times: Mapping[str, FormTimes],
    whole: ForwardTimes | None,
) -> SparseConversion:
    """Write the network that is made and describe what became of each layer."""
    rule, after = candidates.rule, from_model(network)
    layers = tuple(
        result_of(ConvertedLayer, each.report, converted=name in chosen, time=times.get(name))
        for name, each in candidates.layers.items()
    )
    where = written(after, destination)
    return SparseConversion(
        file=checkpoint.path,
        source="daukit",
        architecture=checkpoint.header.architecture,
        threshold=rule.threshold,
        sparsity=rule.sparsity,
        everywhere=rule.everywhere,
        layers=layers,
        skipped=candidates.skipped,
        weights=sum(layer.weights for layer in layers if layer.converted),
        zeros=sum(layer.zeros for layer in layers if layer.converted),
        time=whole,
        bytes_before=stored_bytes(checkpoint) if checkpoint.file_size is None else checkpoint.file_size,
        bytes_after=where["bytes"] if "bytes" in where else stored_bytes(after),
        **where,
    )


def _check_some(checkpoint: Checkpoint, candidates: Candidates) -> None:
    if candidates.layers:
        return
    why = f" ({candidates.skipped[0].name}: {candidates.skipped[0].reason})" if candidates.skipped else ""
    how = in_words_of_caller("sparsity=0.9", "--sparsity 0.9")
    raise CheckpointError(
        f"{checkpoint.called}: its network has no layer with zeros that units can stand for{why}; {how} makes zeros"
    )


def _is_faster(times: FormTimes | None) -> bool:
    return times is not None and times.faster == "sparse"


def _time_layers(
    network: nn.Module, candidates: Candidates, shape: Sequence[int], on_progress: Progress | None
) -> dict[str, FormTimes]:
    """Times of both forms of each candidate that the network calls, on noise of the sizes that it gets."""
    images = torch.randn((BATCH, *shape), generator=torch.Generator().manual_seed(0)).to(dtype_of(network))
    inputs = _inputs(network, candidates, images)
    result = {}
    for done, (name, shapes) in enumerate(inputs.items()):
        if on_progress is not None:
            on_progress(done / len(inputs), name)
        result[name] = _time_forms(candidates.layers[name], shapes)
    return result


def _inputs(network: nn.Module, candidates: Candidates, images: Tensor) -> dict[str, list[torch.Size]]:
    """Sizes of the maps that the network gives each candidate, call by call."""
    shapes: dict[str, list[torch.Size]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.setdefault(name, []).append(inputs[0].shape)

    hooks = [network.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in candidates.layers]
    try:
        run(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: shapes[name] for name in candidates.layers if name in shapes}


def _time_forms(candidate: Candidate, shapes: Sequence[torch.Size]) -> FormTimes:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=generator).to(candidate.dau.weight.dtype) for shape in shapes]

    def forward(layer: nn.Module) -> None:
        with torch.no_grad():
            for each in maps:
                layer(each)

    forms = {"dense": candidate.dense, "sparse": candidate.layer}
    tasks = {name: partial(forward, _as_timed(layer)) for name, layer in forms.items()}
    measured = benchmark.interleave(tasks, ROUNDS)
    is_sparse = measured["sparse"].median < measured["dense"].median
    return FormTimes(input=_sizes(candidate.dense, shapes[0]), faster="sparse" if is_sparse else "dense", **measured)


def _sizes(layer: nn.Module, shape: torch.Size) -> tuple[int, int, int, int]:
    """``FormTimes.input`` for an input of this shape."""
    if isinstance(layer, nn.Linear):
        return shape[:-1].numel(), shape[-1], 1, 1
    batch, channels, height, width = shape
    return batch, channels, height, width


def _as_timed(network: nn.Module) -> nn.Module:
    """What is timed of a network or layer: its form for inference, as users run it where time matters."""
    return prepare(network)
