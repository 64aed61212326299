"""Put DAU layers of whole pixels in the place of layers with zeros, with the same outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daukit.checkpoint.header import history_entry
from daukit.checkpoint.stored import as_stored
from daukit.models import record_of
from daukit.models.structure import replace_module
from daukit.nn import DAUConv2d, DAULinear
from daukit.nn.wrappers import unwrapped
from daukit.results import Count, Positive, Share, Size, result_of
from daukit.substitution.choice import KernelSize, SkippedLayer, Where, choose_convolutions
from daukit.substitution.magnitude import Magnitude, pruned
from daukit.substitution.masks import without_masks
from daukit.substitution.taps import MOST, linear_units_of, units_of


@dataclass(frozen=True, kw_only=True)
class SparseLayer:
    """One convolution or linear layer whose nonzero weights became units.

    Attributes:
        name: the layer's name in the network; its first one where it has several.
        in_channels: channels, or features, of its input.
        out_channels: channels, or features, of its output.
        kernel_size: height and width of the convolution's kernel; None of a linear layer.
        weights: weights of the layer.
        zeros: weights that are zero, or became so.
        units: units of the DAU layer, one for each other weight.
        max_displacement: largest displacement of a unit on an axis, in dilated pixels.
        bytes_before: bytes of its weights and bias.
        bytes_after: bytes of the DAU layer's tensors in a file.
    """

    name: str
    in_channels: Size
    out_channels: Size
    kernel_size: tuple[Size, Size] | None
    weights: Count
    zeros: Count
    units: Count
    max_displacement: Positive
    bytes_before: Count
    bytes_after: Count


@dataclass(frozen=True, kw_only=True)
class SparseReport:
    """The changes that a sparse substitution made.

    Attributes:
        threshold: magnitude below which weights became zero; None where none was given.
        sparsity: share of zeros that was asked for; None where none was.
        everywhere: that share was one over all layers together.
        layers: layers that became DAU layers.
        skipped: layers that stay as they are.
    """

    threshold: Positive | None
    sparsity: Share | None
    everywhere: bool
    layers: tuple[SparseLayer, ...]
    skipped: tuple[SkippedLayer, ...]


@dataclass(frozen=True)
class Candidate:
    """A convolution or linear layer and the DAU layer that computes the same.

    Attributes:
        names: all names of the layer, the first one first.
        dense: the layer without masks, with the weights that stay, in the precision of ``dau``.
        layer: what takes its place: ``dau``, or the ``DAULinear`` that holds it.
        dau: the DAU layer.
        report: what became of its weights.
    """

    names: tuple[str, ...]
    dense: nn.Conv2d | nn.Linear
    layer: DAUConv2d | DAULinear
    dau: DAUConv2d
    report: SparseLayer


@dataclass(frozen=True)
class Candidates:
    """All layers of a network that may become DAU layers.

    Attributes:
        rule: the weights that became zero.
        layers: the layers by their first name, in the network's order.
        skipped: the others that were meant, with the reason.
    """

    rule: Magnitude
    layers: dict[str, Candidate]
    skipped: tuple[SkippedLayer, ...]


def substitute_sparse(
    model: nn.Module, rule: Magnitude | None = None, *, where: Where = None, kernel_size: KernelSize = None
) -> SparseReport:
    """Replace the layers of ``model`` that have zeros by DAU layers of whole pixels, in place.

    A convolution becomes a ``DAUConv2d``, a linear layer a ``DAULinear``. One without zeros, or that no such layer can
    stand for, stays. The outputs are those of the network with its masks applied and, with a ``rule``, those of the
    pruned network.

    Args:
        model: any network.
        rule: weights to make zero first; None: none.
        where: as in ``substitute``.
        kernel_size: as in ``substitute``, but None means any, 1x1 too, and linear layers.

    Raises:
        ValueError: a pattern or size matches no layer, or weights are NaN or infinite; the model is unchanged
            then.
    """
    model = unwrapped(model, "substitute")
    candidates = sparse_candidates(model, rule, where=where, kernel_size=kernel_size)
    return put_sparse(model, candidates, candidates.layers)


@torch.no_grad()
def sparse_candidates(
    model: nn.Module, rule: Magnitude | None = None, *, where: Where = None, kernel_size: KernelSize = None
) -> Candidates:
    """What ``substitute_sparse`` would replace; arguments and errors as there."""
    rule = rule or Magnitude()
    choice = choose_convolutions(model, where, kernel_size, sparse=True)
    found = choice.convolutions | choice.linear
    plain = {name: _plain(found[name]) for name in choice.names if name in found}
    for name, module in plain.items():
        if not bool(module.weight.isfinite().all()):
            raise ValueError(f"{name}: its weights hold NaN or infinite values")
    weights = pruned({name: module.weight.detach() for name, module in plain.items()}, rule)
    layers, skipped = {}, list(choice.skipped)
    for name, module in plain.items():
        reason = _why_dense(weights[name])
        if reason is None:
            layers[name] = _candidate(name, tuple(choice.names[name]), module, weights[name])
        else:
            skipped.append(SkippedLayer(name, reason))
    return Candidates(rule, layers, tuple(skipped))


def put_sparse(model: nn.Module, candidates: Candidates, names: Collection[str]) -> SparseReport:
    """Replace the candidates called ``names`` in ``model`` and report them; the others stay without a word."""
    chosen = {name: each for name, each in candidates.layers.items() if name in names}
    for each in chosen.values():
        for alias in each.names:
            replace_module(model, alias, each.layer)
    rule, record = candidates.rule, record_of(model)
    if record is not None and chosen:
        asked: dict[str, Any] = {"sparse": True, "threshold": rule.threshold, "sparsity": rule.sparsity}
        arguments = {**asked, "everywhere": rule.everywhere, "layers": list(chosen)}
        record.history.append(history_entry("substitute", arguments, None))
    layers = tuple(each.report for each in chosen.values())
    return result_of(SparseReport, rule, layers=layers, skipped=candidates.skipped)


def _plain(module: nn.Module) -> nn.Conv2d | nn.Linear:
    plain = without_masks(module)
    assert isinstance(plain, (nn.Conv2d, nn.Linear))
    return plain


def _why_dense(weight: Tensor) -> str | None:
    """The reason for which a layer with this weight gains nothing as a DAU layer, or cannot be one."""
    kept = weight != 0
    if bool(kept.all()):
        return f"none of its {weight.numel():,} weights is zero"
    most = int(kept.flatten(2).sum(2).max()) if kept.dim() > 2 else 1
    if most > MOST:
        return f"a filter has {most:,} nonzero weights, and a pair of a ragged layer at most {MOST:,} units"
    return None


def _candidate(name: str, names: tuple[str, ...], module: nn.Conv2d | nn.Linear, weight: Tensor) -> Candidate:
    layer = units_of(module, weight) if isinstance(module, nn.Conv2d) else linear_units_of(module, weight)
    dau = layer.dau if isinstance(layer, DAULinear) else layer
    assert isinstance(dau, DAUConv2d)
    report = SparseLayer(
        name=name,
        in_channels=dau.in_channels,
        out_channels=dau.out_channels,
        kernel_size=(module.kernel_size[0], module.kernel_size[1]) if isinstance(module, nn.Conv2d) else None,
        weights=weight.numel(),
        zeros=weight.numel() - dau.weight.numel(),
        units=dau.weight.numel(),
        max_displacement=dau.max_displacement or 0.0,
        bytes_before=_bytes(module),
        bytes_after=_bytes(dau) - dau.mu.nbytes + as_stored(dau.mu.detach(), name).nbytes,
    )
    # In the precision of the units, so that both forms can be timed on one map.
    return Candidate(names, _dense(module, weight.to(dau.weight.dtype)), layer, dau, report)


def _dense(module: nn.Conv2d | nn.Linear, weight: Tensor) -> nn.Conv2d | nn.Linear:
    """A plain layer as ``module``, with ``weight``."""
    dense: nn.Conv2d | nn.Linear
    if isinstance(module, nn.Linear):
        dense = nn.utils.skip_init(nn.Linear, module.in_features, module.out_features, bias=module.bias is not None)
    else:
        dense = nn.utils.skip_init(
            nn.Conv2d, module.in_channels, module.out_channels, module.kernel_size, stride=module.stride,
            padding=module.padding, dilation=module.dilation, groups=module.groups, bias=module.bias is not None,
        )  # fmt: skip
    dense.weight = nn.Parameter(weight, requires_grad=False)
    dense.bias = None if module.bias is None else nn.Parameter(module.bias.detach().to(weight), requires_grad=False)
    return dense


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())
