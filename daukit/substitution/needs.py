"""The units that a trained network would need: the least number per filter whose fit is near enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daukit.fitting import OnFilters, fit_errors
from daukit.nn.wrappers import unwrapped
from daukit.results import Count, Positive, Size
from daukit.substitution.choice import KernelSize, SkippedLayer, Where, choose_convolutions


@dataclass(frozen=True)
class LayerNeeds:
    """One convolution and the units that its filters would need.

    Attributes:
        name: the layer's name in the network.
        kernel_size: height and width of its kernel.
        filters: filters of the layer, one per (output, input) pair.
        filters_fitted: filters that were drawn by the seed and fitted.
        errors: ``||k - k_hat|| / ||k||`` over the fitted filters with 1, 2, ... units each.
        units: least number of units per filter for each error asked for; None: more than were tried.
    """

    name: str
    kernel_size: tuple[Size, Size]
    filters: Count
    filters_fitted: Count
    errors: tuple[Positive, ...]
    units: tuple[Size | None, ...]


@dataclass(frozen=True)
class UnitsTable:
    """The units that a network would need.

    Attributes:
        errors: relative errors asked for.
        sigma: standard deviation of the units in pixels.
        max_units: largest number of units per filter that was tried.
        seed: seed of the fits.
        layers: convolutions of the network.
        skipped: convolutions that no DAU layer can stand for.
        total_units: units of all filters of the network for each error; None: a layer needs more than were tried.
    """

    errors: tuple[Positive, ...]
    sigma: Positive
    max_units: Size
    seed: int
    layers: tuple[LayerNeeds, ...]
    skipped: tuple[SkippedLayer, ...]
    total_units: tuple[Count | None, ...]


def units_needed(
    model: nn.Module,
    errors: Sequence[float] = (0.5, 0.2, 0.1, 0.05),
    *,
    where: Where = None,
    kernel_size: KernelSize = None,
    sigma: float = 0.5,
    max_units: int = 9,
    filters: int | None = 256,
    starts: int = 16,
    seed: int = 0,
    on_filters: OnFilters | None = None,
) -> UnitsTable:
    """Tabulate, for every convolution, the least number of units per filter whose relative error is small enough.

    Args:
        model: a trained network; it is not changed.
        errors: relative errors ``||k - k_hat|| / ||k||``, over all filters of a layer.
        where: which convolutions, as in ``substitute``.
        kernel_size: as in ``substitute``.
        sigma: standard deviation of the blur.
        max_units: largest number of units to try.
        filters: fit at most so many of a layer's filters, drawn by ``seed``; None: all of them.
        starts: starting points per filter, as in ``daukit.fitting.fit_units``.
        seed: seed of the draw and of the random starts.
        on_filters: called with (filters done, filters in all).

    Raises:
        ValueError: an option breaks a rule, a pattern or size matches no convolution, or weights are NaN.
    """
    model = unwrapped(model, "units_needed")
    if not errors or not all(error >= 0 for error in errors):
        raise ValueError(f"errors must be one or more numbers of at least 0, got {tuple(errors)}")
    if filters is not None and filters < 1:
        raise ValueError(f"filters must be None or at least 1, got {filters}")
    choice = choose_convolutions(model, where, kernel_size)
    samples = {name: _sample(conv.weight, filters, seed) for name, conv in choice.convolutions.items()}
    total, done, layers = sum(map(len, samples.values())), 0, []
    for name, kernels in samples.items():
        try:
            found = fit_errors(kernels, max_units, sigma=sigma, starts=starts, seed=seed)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        done += len(kernels)
        if on_filters is not None:
            on_filters(done, total)
        conv = choice.convolutions[name]
        height, width = conv.kernel_size
        count = conv.weight.shape[0] * conv.weight.shape[1]
        needed = tuple(_least(found, error) for error in errors)
        layers.append(
            LayerNeeds(
                name=name,
                kernel_size=(height, width),
                filters=count,
                filters_fitted=len(kernels),
                errors=found,
                units=needed,
            )
        )
    return UnitsTable(
        errors=tuple(errors),
        sigma=sigma,
        max_units=max_units,
        seed=seed,
        layers=tuple(layers),
        skipped=choice.skipped,
        total_units=tuple(_total(layers, i) for i in range(len(errors))),
    )


def _total(layers: Sequence[LayerNeeds], i: int) -> int | None:
    """Units of all filters for the error of this index."""
    units = [layer.units[i] for layer in layers]
    if any(each is None for each in units):
        return None
    return sum(layer.filters * (each or 0) for layer, each in zip(layers, units, strict=True))


def _sample(weight: Tensor, filters: int | None, seed: int) -> Tensor:
    """At most ``filters`` kernels of a convolution's weight (O, C, height, width): (filters, height, width)."""
    kernels = weight.detach().flatten(0, 1)
    if filters is None or len(kernels) <= filters:
        return kernels
    drawn = torch.randperm(len(kernels), generator=torch.Generator().manual_seed(seed))[:filters]
    return kernels[drawn.to(kernels.device)]


def _least(found: Sequence[float], error: float) -> int | None:
    return next((units for units, reached in enumerate(found, start=1) if reached <= error), None)
