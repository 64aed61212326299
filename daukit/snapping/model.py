"""Snap the layers of a network, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from daukit.checkpoint import Checkpoint, build_model, derives
from daukit.errors import CheckpointError
from daukit.models.structure import Description
from daukit.nn import DAUConv2d
from daukit.nn.counts import stored_counts
from daukit.results import Count, Positive, Progress
from daukit.snapping.filters import Target
from daukit.snapping.layers import SnappedUnits, snap_layer
from daukit.snapping.maps import calling_order, layer_maps
from daukit.snapping.outputs import LARGEST_SYSTEM, Refit, refit_outputs

Matched = Literal["filters", "outputs"]


@dataclass(frozen=True, kw_only=True)
class LayerSnap:
    """Units of one layer that were moved to whole pixels.

    Attributes:
        name: name of the layer.
        units_before: units before.
        units_after: units after: fewer where some of a filter met on one pixel.
        moved_mean: mean distance that a unit moved, in pixels of the layer's input.
        moved_largest: largest distance that a unit moved, in pixels of the layer's input.
        error_rounded: norm of the change of the layer's filters, blur included, as a share of their norm, with every
            unit at its nearest whole pixel and its old weight.
        error: the same with the pixels and weights that it has now.
        matched: what its weights were refitted on: its filters, or its outputs on images; null where they were not.
        why_filters: why its filters count and not its outputs, where images were given.
        output_error_before: root mean square error of the layer's outputs on the images, as a share of their standard
            deviation, with weights refitted on filters.
        output_error: the same with weights refitted on outputs.
    """

    name: str
    units_before: Count
    units_after: Count
    moved_mean: Positive
    moved_largest: Positive
    error_rounded: Positive
    error: Positive
    matched: Matched | None
    why_filters: str | None = None
    output_error_before: Positive | None = None
    output_error: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class LayerKept:
    """A layer that was left as it is.

    Attributes:
        name: name of the layer.
        reason: why.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SnapReport:
    """What snapping a network did.

    Attributes:
        layers: layers whose units are at whole pixels now, in the network's order.
        kept: DAU layers that were left as they are.
    """

    layers: tuple[LayerSnap, ...]
    kept: tuple[LayerKept, ...]


@derives
def snap(
    checkpoint: Checkpoint,
    *,
    to: Target = "best",
    layers: Sequence[str] | None = None,
    refit: bool = True,
    inputs: Tensor | None = None,
    seed: int = 0,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> tuple[Checkpoint, SnapReport]:
    """Move units to whole pixels, where reading costs a third, and refit the weights of every filter.

    The layers become ``whole_pixels=True``. Without ``inputs`` a filter's new weights come nearest to the filter as it
    was, in closed form. With ``inputs`` the network is run, layer by layer: the layer reads what the layers before it,
    snapped already, make of the images, and its weights and bias come nearest to the outputs of the network as it was,
    so that a layer makes up for what the ones before it lost.

    Args:
        checkpoint: what to snap, a path or a model likewise; it is not changed.
        to: ``"nearest"``: every unit goes to the nearest pixel within ``max_displacement``; units of a filter that meet
            on one become one. ``"best"``: each goes to the one of the 3x3 pixels around it that leaves the least
            error, and no two of a filter meet as long as there is another pixel.
        layers: names of the layers to snap; default: all. Layers of the general form, and those that have whole
            pixels already, are left as they are.
        refit: False keeps the weights, and goes with ``to="nearest"``.
        inputs: images as the network takes them, (N, C, H, W).
        seed: chooses the positions of outputs that count.
        model: as in ``daukit.load``; only with ``inputs``.
        device: where to run the network.
        on_progress: told of progress.

    Returns:
        The snapped network and what was done to every layer.

    Raises:
        ValueError: ``to`` is unknown, weights are kept where they must be refitted, or there are no images.
        CheckpointError: there is no such layer, one is damaged, or the network cannot be built.
        NetworkError: the network's forward fails on the images.
    """
    if to not in ("best", "nearest"):
        raise ValueError(f'to must be "best" or "nearest", got {to!r}')
    if not refit and (to == "best" or inputs is not None):
        raise ValueError('weights that are not refitted go with to="nearest" and no inputs')
    if inputs is not None and not (isinstance(inputs, Tensor) and inputs.dim() >= 1 and inputs.numel()):
        raise ValueError("inputs must be a tensor of at least one image, (N, C, H, W)")
    chosen, kept = _choose(checkpoint, layers)
    report = on_progress or (lambda share, words: None)
    snapped = {}
    for i, name in enumerate(chosen):
        report(0.5 * i / len(chosen), f"filters of {name}")
        snapped[name] = _Layer(snap_layer(checkpoint, name, to=to, refit=refit), "filters" if refit else None)
    if inputs is not None and chosen:
        networks = [build_model(checkpoint, model=model).to(device) for _ in range(2)]
        _match_outputs(networks[0], networks[1], snapped, inputs, seed, report)
    arguments = {"to": to, "layers": chosen, "refit": refit, "images": 0 if inputs is None else len(inputs)}
    told = SnapReport(layers=tuple(layer.told() for layer in snapped.values()), kept=kept)
    return (_derived(checkpoint, snapped, arguments) if chosen else checkpoint), told


def _choose(checkpoint: Checkpoint, wanted: Sequence[str] | None) -> tuple[list[str], tuple[LayerKept, ...]]:
    """Names of the layers to snap, and the others with the reason."""
    names = checkpoint.layer_names
    for name in wanted or ():
        if name not in names:
            checkpoint.layer(name)  # says so
    if not names:
        raise CheckpointError(f"{checkpoint.called}: its network has no DAU layers, so there are no units to snap")
    chosen, kept = [], []
    for about in checkpoint.header.layers:
        reason = None
        if about["form"] == "gaussian":
            reason = "the general form, a sigma for every unit, has no pixels to read at"
        elif about.get("whole_pixels"):
            reason = "its units are at whole pixels already"
        elif wanted is not None and about["name"] not in wanted:
            reason = "not chosen"
        if reason is None:
            chosen.append(about["name"])
        else:
            kept.append(LayerKept(name=about["name"], reason=reason))
    return chosen, tuple(kept)


@dataclass
class _Layer:
    """A layer on its way: units at whole pixels, and what images change of their weights."""

    units: SnappedUnits
    matched: Matched | None
    why_filters: str | None = None
    refit: Refit | None = None

    @property
    def weight(self) -> Tensor:
        """The weights of the units that are kept."""
        return self.units.weight[self.units.keep] if self.refit is None else self.refit.weight

    def told(self) -> LayerSnap:
        """What was done to it."""
        units, moved = self.units, self.units.moved
        return LayerSnap(
            name=units.units.name,
            units_before=len(moved), units_after=int(units.keep.count_nonzero()),
            moved_mean=float(moved.mean()) if len(moved) else 0.0,
            moved_largest=float(moved.max()) if len(moved) else 0.0,
            error_rounded=units.error_rounded,
            error=units.error,
            matched=self.matched, why_filters=self.why_filters,
            output_error_before=None if self.refit is None else self.refit.error_before,
            output_error=None if self.refit is None else self.refit.error,
        )  # fmt: skip


def _match_outputs(
    before: nn.Module, after: nn.Module, snapped: Mapping[str, _Layer], inputs: Tensor, seed: int, report: Progress
) -> None:
    """Refit the layers on what they make of ``inputs``, in the order in which the network calls them.

    Args:
        before: the network as it was.
        after: the same; its layers are snapped on the way.
        snapped: the layers by name.
        inputs: images as the network takes them.
        seed: chooses the positions that count.
        report: told of progress.
    """
    generator = torch.Generator().manual_seed(seed)
    order = calling_order(before, list(snapped), inputs[:1])
    for name in snapped:
        if name not in order:
            snapped[name].why_filters = "the network does not call it"
    for i, name in enumerate(order):
        report(0.5 + 0.5 * i / len(order), f"outputs of {name}")
        layer, module = snapped[name], after.get_submodule(name)
        assert isinstance(module, DAUConv2d)
        placed = layer.units.placed()
        bias = None if module.bias is None else module.bias.detach().cpu()
        if placed.largest > LARGEST_SYSTEM:
            layer.why_filters = (
                f"an output channel has {placed.largest:,} units, and up to {LARGEST_SYSTEM:,} are matched on images"
            )
        else:
            wanted = layer_maps(before, name, inputs, inputs=False)
            read = layer_maps(after, name, inputs, inputs=True)
            images = min(len(wanted), len(read))  # where the maps grew too large, others are missing
            layer.refit = refit_outputs(read[:images], wanted[:images], placed, layer.weight, bias, generator)
            layer.matched = "outputs"
        _put(module, layer)


@torch.no_grad()
def _put(module: DAUConv2d, layer: _Layer) -> None:
    """Make a network's layer the snapped one."""
    keep = layer.units.keep
    if not bool(keep.all()):
        module.keep_units(keep.reshape(module.weight.shape).to(module.weight.device))
    module.whole_pixels = True
    # New parameters: layers that share theirs go separate ways.
    module.weight = _parameter(layer.weight, module.weight)
    module.mu = _parameter(layer.units.pixel[:, keep], module.mu)
    if module.bias is not None and layer.refit is not None and layer.refit.bias is not None:
        module.bias.copy_(layer.refit.bias)


def _parameter(values: Tensor, former: Tensor) -> nn.Parameter:
    """A parameter of ``values`` with the shape, dtype and device of a former one."""
    return nn.Parameter(values.reshape(former.shape).to(former), requires_grad=former.requires_grad)


def _derived(checkpoint: Checkpoint, snapped: Mapping[str, _Layer], arguments: Mapping[str, Any]) -> Checkpoint:
    """A copy in which layers are snapped, and with that in its history."""
    tensors, modules = dict(checkpoint.tensors), dict(checkpoint.header.modules)
    layers: list[Description] = []
    for about in checkpoint.header.layers:
        name = about["name"]
        if name not in snapped:
            layers.append(about)
            continue
        new = _tensors(checkpoint, snapped[name])
        tensors.update(new)
        changed = {"whole_pixels": True, **({"ragged": True} if f"{name}.unit_counts" in new else {})}
        layers.append({**about, **changed})
        modules[name] = {"type": about["type"], **modules.get(name, {}), **changed}
    derived = checkpoint.derive("snap", arguments, modules=modules, layers=layers)
    return Checkpoint(derived.header, tensors, checkpoint.path)


def _tensors(checkpoint: Checkpoint, layer: _Layer) -> dict[str, Tensor]:
    """The tensors of a snapped layer, in the dtypes that they had; ragged ones where units have met."""
    units, keep = layer.units.units, layer.units.keep
    before = {kind: checkpoint.tensors[f"{units.name}.{kind}"] for kind in ("weight", "mu")}
    weight, mu = layer.weight.to(before["weight"].dtype), layer.units.pixel[:, keep].to(before["mu"].dtype)
    new = {f"{units.name}.weight": weight, f"{units.name}.mu": mu.contiguous()}
    if bool(keep.all()):
        new = {name: tensor.reshape(checkpoint.tensors[name].shape) for name, tensor in new.items()}
    if units.description["ragged"] or not bool(keep.all()):
        counts = torch.bincount(units.pair[keep], minlength=units.counts.numel())
        new[f"{units.name}.unit_counts"] = stored_counts(counts, units.name)
    if layer.refit is not None and layer.refit.bias is not None:
        bias = checkpoint.tensors[f"{units.name}.bias"]
        new[f"{units.name}.bias"] = layer.refit.bias.to(bias.dtype)
    return new
