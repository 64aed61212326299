"""Times of sparse convolutions, as layers of whole-pixel units, beside dense ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from daukit.benchmark.engines import dense_engines
from daukit.benchmark.layers import SHAPES
from daukit.benchmark.networks import depthwise_stack
from daukit.benchmark.timing import Quartiles, interleave, without_grad
from daukit.models import create_model
from daukit.models.replacing import replace_everywhere
from daukit.preparation import prepare
from daukit.substitution.taps import units_of

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Shares of a convolution's weights that are not zero."""

KERNELS = (3, 5, 1)
"""Height = width of the convolutions."""

SPARSE = ("sparse", "prepared")
"""Tasks of sparse layers: as they are, and by ``daukit.prepare``. All others are dense."""


class SparseCase(NamedTuple):
    """What is timed: a layer or a network.

    Attributes:
        name: what it is.
        shape: of a layer, batch, input channels, output channels, and height = width; of a network, that of its input.
        input: shape of the input.
        build: makes it, dense.
    """

    name: str
    shape: tuple[int, int, int, int]
    input: tuple[int, int, int, int]
    build: Callable[[], nn.Module]


def layer_cases(shapes: Sequence[tuple[int, int, int, int]] = SHAPES) -> list[SparseCase]:
    """A convolution of each size of ``KERNELS`` for each (batch, in_channels, out_channels, height = width)."""

    def case(kernel: int, shape: tuple[int, int, int, int]) -> SparseCase:
        batch, inputs, outputs, size = shape
        name, image = f"conv {kernel}x{kernel}", (batch, inputs, size, size)

        def build() -> nn.Module:
            return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))

        return SparseCase(name, shape, image, build)

    return [case(kernel, shape) for kernel in KERNELS for shape in shapes]


def network_cases(quick: bool = False) -> list[SparseCase]:
    """ResNet-50 and a stack of depthwise layers, on eight images and on one; small ones where it has to be quick."""
    if quick:
        tiny = (1, 3, 32, 32)
        return [
            SparseCase("resnet50", tiny, tiny, lambda: create_model("resnet50", width=4, depths=[1, 1, 1, 1])),
            SparseCase("depthwise stack", tiny, tiny, lambda: depthwise_stack(width=4)),
        ]
    return [
        SparseCase(name, (batch, 3, 224, 224), (batch, 3, 224, 224), build)
        for name, build in (("resnet50", lambda: create_model("resnet50")), ("depthwise stack", depthwise_stack))
        for batch in (8, 1)
    ]


def bench_sparse(
    case: SparseCase, *, densities: Sequence[float] = DENSITIES, rounds: int = 9, seed: int = 0
) -> tuple[dict[float, dict[str, Quartiles]], list[str]]:
    """Time inference of a case at several densities beside its dense form.

    Args:
        case: a layer or a network.
        densities: shares of the weights of its 1x1, 3x3 and 5x5 convolutions that are not zero, chosen at random.
        rounds: interleaved rounds, for every density anew.
        seed: seed of weights, zeros and images.

    Returns:
        Quartiles by task for each density: ``"torch"``, for networks ``"torch folded"`` (with batch norms folded),
        the engines that are installed, and those of ``SPARSE``; and a sentence for each engine that is left out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dense, image = case.build().eval(), torch.randn(case.input)
    tasks = {"torch": _inference(dense, image)}
    if any(isinstance(module, nn.BatchNorm2d) for module in dense.modules()):
        tasks["torch folded"] = _inference(prepare(dense), image)
    engines, left_out = dense_engines(dense, image)
    times = {}
    for density in densities:
        sparse = with_zeros(dense, density, seed)
        make_sparse(sparse)
        forms = zip(SPARSE, (_inference(sparse, image), _inference(prepare(sparse), image)), strict=True)
        times[density] = interleave({**tasks, **engines, **dict(forms)}, rounds)
    return times, left_out


def with_zeros(network: nn.Module, density: float, seed: int) -> nn.Module:
    """A copy of ``network`` of whose convolutions' weights a random share of ``density`` is left."""
    generator, sparse = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    for layer in _convolutions(sparse).values():
        weights = layer.weight.detach().view(-1)
        order = torch.randperm(weights.numel(), generator=generator)
        weights[order[round(density * weights.numel()) :]] = 0
    return sparse


def make_sparse(network: nn.Module) -> None:
    """Replace the convolutions whose zeros count by layers of whole-pixel units, in place."""
    for name, layer in _convolutions(network).items():
        replace_everywhere(network, name, units_of(layer, layer.weight.detach()))


def crossover(ratios: Mapping[float, float]) -> float | None:
    """The density below which the sparse form is faster, interpolated between the densities that were measured.

    Args:
        ratios: sparse time / dense time by density.

    Returns:
        The largest density where it is faster at all densities; None where it is not even at the smallest.
    """
    below: tuple[float, float] | None = None
    for density, ratio in sorted(ratios.items()):
        if ratio >= 1:
            if below is None:
                return None
            between = below[0] + (density - below[0]) * (1 - below[1]) / (ratio - below[1])
            return min(between, density)  # which rounding may exceed
        below = density, ratio
    return None if below is None else below[0]


def _inference(network: nn.Module, image: Tensor) -> Callable[[], object]:
    return without_grad(lambda: network(image))


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions of the sizes of ``KERNELS``."""
    modules = network.named_modules()
    found = {name: module for name, module in modules if isinstance(module, nn.Conv2d)}
    return {name: layer for name, layer in found.items() if layer.kernel_size in {(k, k) for k in KERNELS}}
