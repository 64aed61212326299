"""Substitute DAU layers for the chosen convolutions of a network, in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import nn

from daukit.checkpoint.header import history_entry
from daukit.fitting import OnFilters, fit_units
from daukit.limits import check_type, is_flag
from daukit.models import record_of
from daukit.models.structure import replace_module
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d, Initialization
from daukit.nn.wrappers import unwrapped
from daukit.results import Count, Positive, Size
from daukit.substitution.choice import KernelSize, SkippedLayer, Where, choose_convolutions
from daukit.substitution.magnitude import Magnitude
from daukit.substitution.sparse import SparseReport, substitute_sparse


@dataclass(frozen=True)
class SubstitutedLayer:
    """One convolution that became a DAU layer.

    Attributes:
        name: the layer's name in the network; its first one where it has several.
        in_channels: channels of its input.
        out_channels: channels of its output.
        kernel_size: height and width of the convolution's kernel.
        units: units per (output, input) pair.
        max_displacement: limit of a displacement per axis in pixels, wide enough for the kernel; None: no limit.
        parameters_before: parameters of the convolution, bias included.
        parameters_after: parameters of the DAU layer, bias included.
        error: ``||k - k_hat|| / ||k||`` over all filters of the layer; None if nothing was fitted.
    """

    name: str
    in_channels: Size
    out_channels: Size
    kernel_size: tuple[Size, Size]
    units: Size
    max_displacement: Positive | None
    parameters_before: Count
    parameters_after: Count
    error: Positive | None


@dataclass(frozen=True)
class SubstitutionReport:
    """The changes that a substitution made.

    Attributes:
        units: units per (output, input) pair.
        sigma: standard deviation of the units in pixels.
        layers: convolutions that became DAU layers.
        skipped: convolutions that stay as they are.
    """

    units: Size
    sigma: Positive
    layers: tuple[SubstitutedLayer, ...]
    skipped: tuple[SkippedLayer, ...]

    @property
    def parameters_before(self) -> int:
        """Numbers of all replaced convolutions."""
        return sum(layer.parameters_before for layer in self.layers)

    @property
    def parameters_after(self) -> int:
        """Numbers of the DAU layers in their place."""
        return sum(layer.parameters_after for layer in self.layers)


@overload
def substitute(
    model: nn.Module,
    units: int = 2,
    *,
    where: Where = None,
    kernel_size: KernelSize = None,
    sigma: float = 0.5,
    max_displacement: float | None = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "grid",
    fit: bool = False,
    starts: int = 16,
    seed: int = 0,
    on_filters: OnFilters | None = None,
    sparse: Literal[False] = False,
) -> SubstitutionReport: ...


@overload
def substitute(
    model: nn.Module,
    *,
    where: Where = None,
    kernel_size: KernelSize = None,
    sparse: Literal[True],
    threshold: float | None = None,
    sparsity: float | None = None,
    everywhere: bool = False,
) -> SparseReport: ...


def substitute(
    model: nn.Module,
    units: int = 2,
    *,
    where: Where = None,
    kernel_size: KernelSize = None,
    sigma: float = 0.5,
    max_displacement: float | None = DEFAULT_MAX_DISPLACEMENT,
    init: str | Initialization = "grid",
    fit: bool = False,
    starts: int = 16,
    seed: int = 0,
    on_filters: OnFilters | None = None,
    sparse: bool = False,
    threshold: float | None = None,
    sparsity: float | None = None,
    everywhere: bool = False,
) -> SubstitutionReport | SparseReport:
    r"""Replace convolutions of ``model`` by DAU layers, in place.

    A DAU layer can stand for an ``nn.Conv2d`` with an odd kernel and zero padding of
    ``dilation * (kernel_size - 1) / 2``; stride, dilation, groups, bias, device, mode and ``requires_grad`` stay.
    Without ``fit``, the units are as new, and the network must be trained. With it, every filter gets the units that
    come nearest to its trained kernel. Make a new optimiser afterwards.

    With ``sparse``, every nonzero weight of a convolution or linear layer that has zeros becomes a unit at a whole
    pixel, and the outputs stay as they are: see ``substitute_sparse``, which has fewer conditions on kernels and
    padding.

    Args:
        model: any network; its parameters are replaced, its code stays.
        units: units per (output, input) pair.
        where: names of convolutions as ``"layer3.*.conv2"`` (``fnmatch`` patterns), or a predicate of (name, module);
            None: all with an odd kernel larger than 1x1.
        kernel_size: replace only kernels of this size; 1x1 kernels are replaced only where it asks for them.
        sigma: standard deviation of the blur. It limits how near a fit can come: a small one follows a kernel's taps
            better, a larger one gives displacements a gradient that sees farther.
        max_displacement: limit of \|mu\| per axis, in dilated pixels; at least as far as the kernel reached. None: no
            limit.
        init: initialiser of mu where nothing is fitted, as in ``DAUConv2d``.
        fit: choose weights and displacements by ``daukit.fitting.fit_units``.
        starts: starting points per filter, as in ``fit_units``.
        seed: seed of the random ones.
        on_filters: called while fitting, with (filters done, filters in all).
        sparse: make units of the weights that are not zero; goes with ``where``, ``kernel_size`` and what follows.
        threshold: first make weights zero whose magnitude is below this number.
        sparsity: first make this share of the weights of each layer zero, the smallest ones.
        everywhere: let ``sparsity`` be the share over all layers together.

    Returns:
        What was replaced, and what was chosen but cannot be, with the reason.

    Raises:
        ValueError: a pattern or size matches no convolution, an option breaks a rule or does not go with another, or
            there are NaN weights to fit; the model is unchanged then.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        >>> substitute(model, units=2).layers[0].parameters_after
        152
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> substitute(model, sparse=True, sparsity=0.9).layers[0].units
        22
    """
    check_type(sparse, is_flag, "sparse must be True or False")
    if sparse:
        dense = (units, sigma, max_displacement, init, fit, starts, seed, on_filters)
        if dense != (2, 0.5, DEFAULT_MAX_DISPLACEMENT, "grid", False, 16, 0, None):
            raise ValueError("sparse=True makes units of the weights that are there; drop units, sigma, init and fit")
        return substitute_sparse(
            model, Magnitude(threshold, sparsity, everywhere), where=where, kernel_size=kernel_size
        )
    if (threshold, sparsity, everywhere) != (None, None, False):
        raise ValueError("threshold, sparsity and everywhere go with sparse=True")
    model = unwrapped(model, "substitute")
    choice = choose_convolutions(model, where, kernel_size)
    total = sum(conv.weight.shape[0] * conv.weight.shape[1] for conv in choice.convolutions.values())
    done, layers, reports = 0, {}, []
    for name, conv in choice.convolutions.items():
        layer, error = _dau_layer(conv, units=units, sigma=sigma, limit=max_displacement, init=init), None
        if fit:
            error = _fit(name, layer, conv, starts=starts, seed=seed, on_filters=_counted(on_filters, done, total))
        done += layer.pairs
        layers[name] = layer
        reports.append(_describe(name, conv, layer, error))
    for name, layer in layers.items():
        for alias in choice.names[name]:
            replace_module(model, alias, layer)
    report = SubstitutionReport(units, sigma, tuple(reports), choice.skipped)
    record = record_of(model)
    if record is not None and layers:
        arguments = {"units": units, "sigma": sigma, "fit": fit, "seed": seed, "layers": list(layers)}
        record.history.append(history_entry("substitute", arguments, None))
    return report


def _dau_layer(conv: nn.Conv2d, units: int, sigma: float, limit: float | None, init: str | Initialization) -> DAUConv2d:
    """A new layer of the convolution's shape, device and dtype, with its bias."""
    (height, width), (sy, sx), (dy, dx) = conv.kernel_size, conv.stride, conv.dilation
    layer = DAUConv2d(
        conv.in_channels, conv.out_channels, units,
        max_displacement=None if limit is None else float(max(limit, height // 2, width // 2)),
        sigma=sigma, stride=(sy, sx), dilation=(dy, dx), groups=conv.groups, bias=conv.bias is not None, init=init,
    ).to(conv.weight.device, conv.weight.dtype)  # fmt: skip
    layer.weight.requires_grad_(conv.weight.requires_grad)
    layer.mu.requires_grad_(conv.weight.requires_grad)
    if layer.bias is not None and conv.bias is not None:
        layer.bias.requires_grad_(conv.bias.requires_grad)
        with torch.no_grad():
            layer.bias.copy_(conv.bias)
    return layer


@torch.no_grad()
def _fit(name: str, layer: DAUConv2d, conv: nn.Conv2d, starts: int, seed: int, on_filters: OnFilters | None) -> float:
    assert isinstance(layer.sigma, float)
    try:
        fitted = fit_units(
            conv.weight.to(layer.weight.dtype), layer.units, sigma=layer.sigma,
            max_displacement=layer.max_displacement, starts=starts, seed=seed, on_filters=on_filters,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    layer.weight.copy_(fitted.weight)
    layer.mu.copy_(fitted.mu)
    return fitted.error


def _counted(on_filters: OnFilters | None, done: int, total: int) -> Callable[[int, int], None] | None:
    """``on_filters`` for one layer of a network, of which ``done`` filters are fitted."""
    return None if on_filters is None else lambda here, _: on_filters(done + here, total)


def _describe(name: str, conv: nn.Conv2d, layer: DAUConv2d, error: float | None) -> SubstitutedLayer:
    height, width = conv.kernel_size
    before, after = (sum(parameter.numel() for parameter in module.parameters()) for module in (conv, layer))
    return SubstitutedLayer(
        name=name,
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel_size=(height, width),
        units=layer.units,
        max_displacement=layer.max_displacement,
        parameters_before=before,
        parameters_after=after,
        error=error,
    )
