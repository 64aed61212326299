"""Times of layers beside their peers, and of the backends beside each other."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit import ops
from daukit.benchmark.timing import Quartiles, interleave, without_grad
from daukit.errors import DaukitError, in_words_of_caller
from daukit.nn import DEFAULT_MAX_DISPLACEMENT, DAUConv2d
from daukit.ops import dau_conv2d
from daukit.preparation import PreparedDAUConv2d

SHAPES = (
    (8, 96, 96, 32),
    (8, 64, 64, 56),
    (8, 128, 128, 28),
    (8, 256, 256, 14),
    (8, 512, 512, 7),
    (8, 256, 384, 13),
    (1, 128, 128, 64),
    (1, 32, 32, 256),
)
"""(batch, in_channels, out_channels, height = width) of layers as classification, AlexNet and deblurring have them."""

REACH = DEFAULT_MAX_DISPLACEMENT
"""Displacements are uniform within this many pixels: the worst case of a 9x9 receptive field."""


def bench_layer(
    shape: tuple[int, int, int, int],
    *,
    displacement: float = REACH,
    rounds: int = 9,
    peers: bool = False,
    seed: int = 0,
) -> dict[str, Quartiles]:
    """Time a DAU layer of one shape through the public operator, blur and allocation included, and its peers.

    Args:
        shape: (batch, in_channels, out_channels, height = width).
        displacement: limit of the displacements in pixels, which are uniform within it.
        rounds: interleaved rounds.
        peers: also time dcls, which must be installed; it takes seconds a call at many channels.
        seed: seed of inputs and parameters.

    Returns:
        Quartiles by name: ``forward ...`` and ``backward ...`` of ``conv 3x3``, ``conv 9x9`` and DAU layers.

    Raises:
        DaukitError: dcls is asked for and not installed.
    """
    batch, inputs, outputs, size = shape
    generator = torch.Generator().manual_seed(seed)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).requires_grad_()

    def units(count: int) -> tuple[Tensor, Tensor]:
        mu = displacement * (2 * torch.rand(2, outputs, inputs, count, generator=generator) - 1)
        return noise(outputs, inputs, count), mu.requires_grad_()

    x, error = noise(batch, inputs, size, size), noise(batch, outputs, size, size).detach()
    kernel3, kernel9 = noise(outputs, inputs, 3, 3), noise(outputs, inputs, 9, 9)
    two, four = units(2), units(4)
    pruned = _half(*two, generator)
    whole = two[0], two[1].detach().round().requires_grad_()
    nothing = noise(outputs, inputs, 0).detach(), torch.zeros(2, outputs, inputs, 0)
    forwards: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "conv 3x3": (lambda: F.conv2d(x, kernel3, padding=1), [x, kernel3]),
        "conv 9x9": (lambda: F.conv2d(x, kernel9, padding=4), [x, kernel9]),
        "DAU K=2": (lambda: dau_conv2d(x, *two), [x, *two]),
        "DAU K=4": (lambda: dau_conv2d(x, *four), [x, *four]),
        "DAU K=2 exact": (lambda: dau_conv2d(x, *two, mu_gradient="exact"), [x, *two]),
        "DAU K=2 whole": (lambda: dau_conv2d(x, *whole), [x, *whole]),
    }
    if peers:
        layer = _dcls(inputs, outputs, math.ceil(displacement))
        forwards["dcls K=2"] = (lambda: layer(x), [x, *layer.parameters()])
    tasks = {f"forward {name}": without_grad(run) for name, (run, _) in forwards.items() if "exact" not in name}
    tasks["forward DAU K=2 half pruned"] = without_grad(lambda: dau_conv2d(x, *pruned[:2], unit_ptr=pruned[2]))
    tasks["forward DAU no units"] = without_grad(lambda: dau_conv2d(x, *nothing))
    for name, units_of in (("DAU K=2", two), ("DAU K=2 whole", whole)):
        tasks[f"forward {name} prepared"] = without_grad(partial(_prepared(*units_of, displacement), x))
    for name, (run, leaves) in forwards.items():
        if name not in ("conv 9x9", "DAU K=4"):
            tasks[f"backward {name}"] = _backward(run(), leaves, error)
    return interleave(tasks, rounds)


BACKEND_CASES: dict[str, tuple[tuple[int, int, int, int], int, dict[str, int]]] = {
    "K=16": ((8, 64, 64, 28), 16, {}),
    "K=24": ((8, 64, 64, 28), 24, {}),
    "K=32": ((8, 64, 64, 28), 32, {}),
    "K=48": ((8, 64, 64, 28), 48, {}),
    "stride 2": ((8, 96, 96, 32), 2, {"stride": 2}),
    "stride 4": ((8, 96, 96, 32), 2, {"stride": 4}),
    "dilation 2": ((8, 96, 96, 32), 2, {"dilation": 2}),
    "8 groups": ((8, 96, 96, 32), 2, {"groups": 8}),
    "depthwise, 32x32": ((8, 96, 96, 32), 2, {"groups": 96}),
    "depthwise, 7x7": ((8, 512, 512, 7), 2, {"groups": 512}),
    "first layer": ((128, 1, 96, 28), 2, {}),
    "tiny": ((1, 2, 4, 16), 2, {}),
}
"""Layers where the dense path could win: name to (shape, units, options)."""


def bench_backends(name: str, *, rounds: int = 5, seed: int = 0) -> dict[str, Quartiles]:
    """Time one of ``BACKEND_CASES`` on the dense and on the native backend, forward and backward."""
    (batch, inputs, outputs, size), units, options = BACKEND_CASES[name]
    generator = torch.Generator().manual_seed(seed)
    shape = (outputs, inputs // options.get("groups", 1), units)
    x, weight = (torch.randn(*s, generator=generator) for s in ((batch, inputs, size, size), shape))
    mu = REACH * (2 * torch.rand(2, *shape, generator=generator) - 1)
    leaves = [t.requires_grad_() for t in (x, weight, mu)]
    tasks: dict[str, Callable[[], object]] = {}
    for backend in ("dense", "native"):

        def run(backend: str = backend) -> Tensor:
            with ops.backend(backend):
                return dau_conv2d(x, weight, mu, **options)  # type: ignore[arg-type]

        output = run()
        tasks[f"forward {backend}"] = without_grad(run)
        tasks[f"backward {backend}"] = _backward(output, leaves, torch.ones_like(output))
    return interleave(tasks, rounds)


def _half(weight: Tensor, mu: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged units: a random half of dense ones."""
    keep = torch.rand(weight.shape, generator=generator) < 0.5
    counts = keep.flatten(0, 1).sum(1)
    unit_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    return weight.detach()[keep], mu.detach()[:, keep], unit_ptr


@torch.no_grad()
def _prepared(weight: Tensor, mu: Tensor, limit: float) -> PreparedDAUConv2d:
    """A prepared layer of these units, without a bias."""
    outputs, inputs, count = weight.shape
    layer = DAUConv2d(inputs, outputs, count, max_displacement=math.ceil(limit), bias=False)
    layer.weight.copy_(weight)
    layer.mu.copy_(mu)
    return PreparedDAUConv2d(layer)


def _backward(output: Tensor, leaves: list[Tensor], error: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(output, leaves, error, retain_graph=True)


def _dcls(inputs: int, outputs: int, reach: int) -> nn.Module:
    logging.disable(logging.WARNING)  # it warns on the root logger that kernels of other machines are missing
    try:
        from DCLS.construct.modules import Dcls2d

        window = 2 * reach + 1
        layer: nn.Module = Dcls2d(
            inputs, outputs, kernel_count=2, dilated_kernel_size=window, padding=reach, bias=False
        )
    except ImportError:
        how = in_words_of_caller("peers=True", "--peers")
        raise DaukitError(f"dcls is not installed; pip install dcls==0.1.1, or leave {how} out") from None
    finally:
        logging.disable(logging.NOTSET)
    return layer
