"""Run and compare networks of users, whatever they return."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from daukit.models.usercode import calling


def run(network: nn.Module, image: Tensor) -> Any:
    """Run ``network`` on ``image`` without gradients.

    Raises:
        NetworkError: its forward fails on such an input.
    """
    with torch.no_grad(), calling(network, image):
        return network(image)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put ``network`` into eval mode inside the block; afterwards every module has its own mode again."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def largest_difference(model: nn.Module, twin: nn.Module, example: Tensor) -> float:
    """The largest difference of two networks' outputs, as a share of the largest output, in the precision of all three.

    Outputs may be tensors, or tuples, lists and dictionaries of them; ones of other shapes are infinitely far apart.

    Raises:
        NetworkError: a network's forward fails on an input like ``example``.
    """
    return output_difference(run(model.eval(), example), run(twin.eval(), example))


def output_difference(expected: Any, actual: Any) -> float:
    """The largest difference of one output from the ``expected`` one, as a share of its largest value.

    Outputs are as in ``largest_difference``; NaN is the difference of anything from NaN.
    """
    expected, actual = list(_tensors(expected)), list(_tensors(actual))
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in actual]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(expected, actual, strict=True) if a.numel()]
    if not pairs:
        return 0.0
    # Through tensors: Python's max may lose a NaN.
    scale = float(torch.stack([a.abs().max().double() for a, _ in pairs]).max())
    return float(torch.stack([(b - a).abs().max().double() for a, b in pairs]).max()) / (scale or 1.0)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, also of networks that keep tensors with a history, as weight normalisation does."""
    # torch copies no such tensor, but takes a copy that is there already.
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in derived_tensors(model)})


def derived_tensors(model: nn.Module) -> list[Tensor]:
    """Tensors with a history that modules keep beside their parameters, as weight normalisation does."""
    values = (value for module in model.modules() for value in vars(module).values())
    return [value for value in values if isinstance(value, Tensor) and not value.is_leaf]


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type that ``network`` computes in: that of its first floating-point parameter or buffer."""
    tensors = (*network.parameters(), *network.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output if output.is_floating_point() or output.is_complex() else output.double()
    elif isinstance(output, Mapping | Sequence) and not isinstance(output, str):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(item)
