"""Calls of the operator with the arguments of a case, and their gradients."""

import torch
from cases import CASES

from daukit.ops import backend, dau_conv2d

LEAVES = ("input", "weight", "mu", "bias")
BY_NAME = {case.name: case for case in CASES}


def call(arguments, **changes):
    arguments = {**arguments, **changes}
    return dau_conv2d(
        arguments.pop("input"), arguments.pop("weight"), arguments.pop("mu"), arguments.pop("bias"), **arguments
    )


def leaves_of(arguments):
    return [arguments[name] for name in LEAVES if arguments[name] is not None]


def gradients(arguments, name, **changes):
    with backend(name):
        output = call(arguments, **changes)
    weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).to(output.dtype)
    sources = [*leaves_of(arguments), *(v for v in changes.values() if isinstance(v, torch.Tensor))]
    return output, torch.autograd.grad(output, sources, weights)
